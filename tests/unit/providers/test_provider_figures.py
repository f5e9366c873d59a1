"""Figures of the providers: budgets of requests, statuses, what is remembered. No request is sent."""

from __future__ import annotations

import asyncio
import email.utils
import logging
from collections.abc import Sequence
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart_service.base.metric_labels import BatchEnd
from headstart_service.domain import CallOutcome
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.language_model import Usage
from headstart_service.providers import model_request
from headstart_service.providers.anthropic import API
from headstart_service.providers.anthropic_answers import usage_of
from headstart_service.providers.embedding_cache import CachedEmbedder
from headstart_service.providers.governor import NotCalled
from headstart_service.providers.http import http_client
from headstart_service.providers.model_request import (
    ModelRequest,
    end_of,
    limited,
    observed,
    require_whole,
    retry_after,
    status_failure,
)
from headstart_service.providers.progress import build_progress
from headstart_service.worker import step_deadline
from tests.support.virtual_time import Clock, run_virtually


class Noted:
    """Notes what it is told of requests and texts."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, float, int]] = []
        self.texts: list[tuple[str, int]] = []

    def requested(self, end: str, seconds: float, retries: int) -> None:
        self.requests.append((end, seconds, retries))

    def batched(self, end: BatchEnd) -> None:
        raise AssertionError("no call went into a batch")

    def spent(self, usage: Usage) -> None:
        raise AssertionError("nothing was answered")

    def embedded(self, source: str, texts: int) -> None:
        self.texts.append((source, texts))

    def encoded(self, texts: int, seconds: float) -> None:
        raise AssertionError("nothing was encoded")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    module = SimpleNamespace(perf_counter=made, monotonic=made, time=made)
    monkeypatch.setattr(model_request, "time", module)
    monkeypatch.setattr(step_deadline, "time", module)
    return made


# A request's budget


@pytest.mark.parametrize(
    ("left", "budget"), [(0.0, 0.0), (1.0, 0.9), (10.0, 9.0), (10.5, 9.5), (45.0, 44.0)]
)
async def test_a_request_ends_a_tenth_or_a_second_before_its_step(
    clock: Clock, left: float, budget: float
) -> None:
    noted = Noted()
    step_deadline.end_in(left)
    with observed(noted, API, 7.0) as asked:
        assert asked.left == asked.step_left == pytest.approx(budget)
        clock.now += 0.5
        assert asked.left == pytest.approx(max(0.0, left - 0.5) - (left - budget))
        for _ in range(3):
            asked.begin_try()
    assert noted.requests == [("cancelled", 0.5, 2)]


async def test_a_request_outside_of_a_step_has_its_own_patience(clock: Clock) -> None:
    noted = Noted()
    with observed(noted, API, 7.0) as asked:
        assert asked.step_left is None
        clock.now += 0.5
        assert asked.left == pytest.approx(6.5)
    assert noted.requests == [("cancelled", 0.5, 0)]


@pytest.mark.parametrize("end", ["over_budget", "rate_limited"])
async def test_a_request_that_was_not_sent_ends_by_what_kept_it(clock: Clock, end: str) -> None:
    noted = Noted()
    with pytest.raises(NotCalled), observed(noted, API, 7.0):
        raise NotCalled("no permit", end=end)
    assert noted.requests == [(end, 0.0, 0)]


@pytest.mark.parametrize(
    ("before", "status", "reason", "outcome"),
    [
        (0.0, 0, "did not answer within 4.5 s", CallOutcome.FAILED),
        (0.0, 529, "answered 529 (overloaded)", CallOutcome.FAILED),
        (40.0, 529, "answered 529 (overloaded)", CallOutcome.LOST),
    ],
)
def test_a_step_that_is_over_ends_a_request_with_what_is_known_of_it(
    before: float, status: int, reason: str, outcome: CallOutcome
) -> None:
    async def ask() -> tuple[float, ModelRequest, StepFailed]:
        loop = asyncio.get_running_loop()
        step_deadline.end_in(5)
        with observed(Noted(), API, 0.0) as asked:
            asked.status = status
            asked.began -= before
            began = loop.time()
            with pytest.raises(StepFailed) as failed:
                async with limited(asked):
                    await asyncio.sleep(3600)
        return loop.time() - began, asked, failed.value

    took, asked, failed = run_virtually(ask())
    assert took == pytest.approx(4.5, abs=0.1)
    assert (asked.end, asked.outcome) == ("timeout", outcome)
    assert (str(failed), failed.retry) == (f"the Anthropic API {reason}", True)


async def test_a_step_keeps_a_time_out_of_its_own() -> None:
    asked = ModelRequest(API, model_request.time.perf_counter(), 60.0)
    with pytest.raises(TimeoutError, match="its own"):
        async with limited(asked):
            raise TimeoutError("its own")
    assert asked.end == ""


NOW = 1000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "40"}, 40.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "40"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "40"}, 40.0),
        ({"retry-after": email.utils.formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": "nonsense"}, 0.0),
    ],
    ids=str,
)
async def test_an_answer_gives_how_long_to_wait_in_several_ways(
    clock: Clock, headers: dict[str, str], seconds: float
) -> None:
    assert retry_after(headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("code", "pause", "whole", "waits", "outcome", "may_pass"),
    [
        (399, "", 10.0, False, CallOutcome.FAILED, True),
        (400, "", 10.0, False, CallOutcome.ANSWERED, False),
        (409, "", 10.0, False, CallOutcome.ANSWERED, True),
        (429, "9.9", 10.0, False, CallOutcome.REFUSED, True),
        (429, "10", 10.0, True, CallOutcome.REFUSED, True),
        (503, "40", 10.0, True, CallOutcome.REFUSED, True),
        (429, "40", 0.0, False, CallOutcome.REFUSED, True),
        (500, "", 10.0, False, CallOutcome.FAILED, True),
        (504, "", 10.0, False, CallOutcome.FAILED, True),
        (529, "", 10.0, False, CallOutcome.REFUSED, True),
    ],
)
def test_an_answer_shows_something_of_the_api_and_of_the_request(
    *, code: int, pause: str, whole: float, waits: bool, outcome: CallOutcome, may_pass: bool
) -> None:
    asked = ModelRequest(API, 0.0, 0.0, whole=whole)
    asked.begin_try()
    assert (asked.outcome, asked.may_pass) == (CallOutcome.LOST, False)
    asked.note_status(code, {"retry-after": pause})
    assert (asked.waits, asked.outcome, asked.may_pass) == (waits, outcome, may_pass)
    asked.begin_try()
    assert (asked.waits, asked.outcome, asked.may_pass) == (False, CallOutcome.LOST, False)


@pytest.mark.parametrize(
    ("code", "end", "meaning", "retry"),
    [
        (399, "server_error", None, True),
        (400, "refused", " (bad request)", False),
        (402, "refused", " (billing)", False),
        (408, "timeout", " (timeout)", True),
        (409, "refused", "", True),
        (413, "refused", " (request too large)", False),
        (429, "rate_limited", " (rate limited)", True),
        (499, "refused", "", False),
        (500, "server_error", " (internal error)", True),
        (503, "server_error", " (unavailable)", True),
        (504, "timeout", " (timeout)", True),
        (529, "overloaded", " (overloaded)", True),
    ],
)
def test_each_status_has_its_end_its_meaning_and_whether_another_try_helps(
    code: int,
    end: str,
    meaning: str | None,
    retry: bool,  # noqa: FBT001
) -> None:
    asked = ModelRequest(API, 0.0, 0.0)
    asked.status = code
    failed = status_failure(asked)
    broken = "the Anthropic API broke its answer off"
    said = broken if meaning is None else f"the Anthropic API answered {code}{meaning}"
    assert (end_of(code), str(failed), failed.retry) == (end, said, retry)


@pytest.mark.parametrize(
    ("stop", "end", "said", "retry"),
    [
        ("end_turn", "", "", True),
        ("stop_sequence", "", "", True),
        (None, "unreadable", "answer broke off", True),
        ("", "unreadable", "answer broke off", True),
        ("refusal", "declined", "declined to answer", False),
        ("max_tokens", "cut_off", "answer was cut off at its token limit", False),
        ("tool_use", "cut_off", "answer is unfinished: tool_use", False),
        ("new", "cut_off", "answer is unfinished: it stopped for an unknown reason", False),
    ],
)
def test_each_stop_reason_has_its_end(
    stop: str | None,
    end: str,
    said: str,
    retry: bool,  # noqa: FBT001
) -> None:
    asked = ModelRequest(API, 0.0, 0.0)
    if said:
        with pytest.raises(StepFailed, match=f"^the language model('s)? {said}$") as failed:
            require_whole(asked, stop)
        assert failed.value.retry is retry
    else:
        require_whole(asked, stop)
    assert asked.end == end


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (SimpleNamespace(input_tokens=3, output_tokens=4), (3, 4)),
        (SimpleNamespace(input_tokens="3", output_tokens=4), (0, 4)),
        (SimpleNamespace(input_tokens=3), (3, 0)),
        (None, (0, 0)),
    ],
)
def test_tokens_that_an_answer_does_not_tell_are_none(usage: Any, tokens: tuple[int, int]) -> None:
    found = usage_of(usage)
    assert (found.input_tokens, found.output_tokens) == tokens


# What is remembered of texts


class Embedder:
    """Embeds each text as its length; notes what it is asked."""

    model = identity = "lengths"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> Any:
        self.asked.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32).reshape(-1, 1)


async def test_the_texts_that_were_used_last_are_remembered_and_each_is_counted() -> None:
    words = SimpleNamespace(matrix=np.array([[9.0]], np.float32), index={"sea": 0})
    embedder, noted = Embedder(), Noted()
    made = CachedEmbedder(embedder, words, remembered=2, observer=noted)  # type: ignore[arg-type]
    assert (await made.embed(["a", "bb", "sea", "a"])).tolist() == [[1], [2], [9], [1]]
    assert embedder.asked == [["a", "bb"]]
    assert sorted(noted.texts) == [("model", 2), ("vocabulary", 1)]
    noted.texts.clear()
    await made.embed(["a"])  # so that `bb` is the one that was used least lately
    await made.embed(["ccc"])
    await made.embed(["a", "bb"])
    assert embedder.asked[1:] == [["ccc"], ["bb"]]
    assert noted.texts == [("remembered", 1), ("model", 1), ("remembered", 1), ("model", 1)]
    assert (await made.embed([])).shape == (0, 1)
    assert (made.model, made.identity) == ("lengths", "lengths")
    forgetful = CachedEmbedder(embedder, None, remembered=0)  # type: ignore[arg-type]
    for _ in range(2):
        await forgetful.embed(["sea"])
    assert embedder.asked[-2:] == [["sea"], ["sea"]]


# HTTP and progress


async def test_the_http_client_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    class Client:
        def __init__(self, **options: Any) -> None:
            made.update(options)

        async def __aenter__(self) -> str:
            return "client"

        async def __aexit__(self, *_: object) -> None:
            made["closed"] = True

    monkeypatch.setattr("headstart_service.providers.patient_http.PatientClient", Client)
    async with http_client() as client:
        assert client == "client"  # type: ignore[comparison-overlap]
    limits, timeout = made["limits"], made["timeout"]
    assert (limits.max_connections, limits.max_keepalive_connections) == (100, 20)
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (10, 10, 10, 5)
    assert made["closed"]


def test_building_logs_six_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    with build_progress(StringIO()) as show:
        for done in range(101):
            show(done, 100)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"embedding the vocabulary: {done} of 100 words" for done in (0, 20, 40, 60, 80, 100)
    ]
    with build_progress(StringIO()) as show:
        show(0, 0)
    assert len(caplog.records) == 7
