"""What spans say, against OpenTelemetry's own SDK in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode
from pydantic import BaseModel

from headstart_service.domain import Claim, Job, Lease, RunKey, StepRecord, StepState
from headstart_service.domain.errors import LeaseLost, StepFailed
from headstart_service.providers.openai import OpenAIModel
from headstart_service.telemetry.tracing.context import as_text, from_metadata, from_text
from headstart_service.telemetry.tracing.recent import RecentStarts
from headstart_service.telemetry.tracing.tracing import FollowStart, Tracing
from headstart_service.worker.worker_observer import (
    UNWANTED,
    FailedTry,
    ItemEnd,
    RunEnd,
    RunOutcome,
    StepEnd,
    StepOutcome,
)
from tests.support.completions_api import CompletionsApi, chunks, completion

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = TRACE[:-2] + "00"
KEY = RunKey("games", "game-1")


class Form(BaseModel):
    field: int


def claim(trace: str = TRACE) -> Claim:
    return Claim(Lease(Job(0, "5-0", KEY, "5-0"), 2), 3, "bridging", b"{}", {}, 0, trace)


@dataclass
class Traced:
    tracing: Tracing
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def traced_with(sampler: Sampler) -> Traced:
    provider = TracerProvider(sampler=FollowStart(sampler))
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traced(Tracing(provider), exporter)


@pytest.fixture
def traced() -> Iterator[Traced]:
    return traced_with(ALWAYS_ON)


async def test_a_call_of_a_model_whose_sdk_makes_no_spans_is_one(traced: Traced) -> None:
    with CompletionsApi() as api:
        api.script(completion("Because."), completion(None, refusal="no"), chunks(["a", "b"]))
        async with OpenAIModel(api_key=None, model="m", base_url=api.url) as model:
            watched = traced.tracing.model_without_spans(model, "m")
            assert watched.identity == "openai:m"
            assert await watched.warm()
            assert (await watched.text(prompt="Why?", max_tokens=9)).text == "Because."
            with pytest.raises(StepFailed):
                await watched.parse(system="s", prompt="p", output=Form, max_tokens=9)
            async with watched.stream(system="s", prompt="p", max_tokens=9) as answer:
                assert [text async for text in answer] == ["a", "b"]
    assert [span.name for span in traced.spans] == ["chat m"] * 3
    types = [span.attributes.get("error.type") for span in traced.spans if span.attributes]
    assert types == [None, "StepFailed", None]


def test_a_step_reports_each_failed_try_as_callers_may_read_it(traced: Traced) -> None:
    work = traced.tracing.work("w")
    with work.run(claim(), run := RunOutcome()):
        with work.step(claim(), "haiku_bridge", step := StepOutcome()):
            step.tried += [FailedTry(7, "internal error 1"), FailedTry(8, "internal error 2")]
            step.items[ItemEnd.FAILED] = 3
            step.attempts, step.state, step.error = 2, StepEnd.FAILED, "internal error 2"
        run.state = RunEnd.COMPLETED
    first, second = traced.spans
    assert (first.name, second.name) == ("step haiku_bridge", "run bridging")
    told = [(event.timestamp, event.attributes["error"]) for event in first.events]
    assert told == [(7, "internal error 1"), (8, "internal error 2")]
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "internal error 2"
    assert first.attributes["headstart.tries"] == 2
    assert first.attributes["headstart.items.failed"] == 3
    assert second.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("state", "error", "failed"),
    [
        ("completed", "", False),
        ("handed_on", "", False),
        ("stopped", UNWANTED, False),
        ("stopped", "its lease was lost", True),
        ("failed", "first: internal error 1", True),
    ],
)
def test_a_run_is_an_error_when_it_is_somebodys_trouble(
    traced: Traced, state: str, error: str, *, failed: bool
) -> None:
    with traced.tracing.work("w").run(claim(), outcome := RunOutcome()):
        outcome.state, outcome.error = RunEnd(state), error
    [span] = traced.spans
    assert (span.status.status_code is StatusCode.ERROR) is failed
    assert span.attributes["headstart.end"] == state


async def test_a_write_that_fails_reports_its_kind_and_not_its_text(traced: Traced) -> None:
    class Ledger:
        async def commit(self, lease, ended, running):
            raise LeaseLost("whatever stands here")

        async def finish(self, lease, ended, status, error, failure_reason=None, slot_seconds=None):
            raise AssertionError

    ledger = traced.tracing.sink(Ledger())
    with pytest.raises(LeaseLost):
        await ledger.commit(claim().lease, [StepRecord("a", StepState.COMPLETED, b"xy")], ())
    [span] = traced.spans
    assert span.attributes["headstart.steps"] == ("a",)
    assert span.attributes["headstart.bytes"] == 2
    assert span.status.description == "LeaseLost"
    assert "whatever" not in span.to_json()


@pytest.mark.parametrize(
    ("chosen", "trace", "kept"),
    [
        (ALWAYS_OFF, TRACE, 1),
        (ALWAYS_ON, UNSAMPLED, 0),
        (ALWAYS_ON, "", 1),
        (ALWAYS_OFF, "", 0),
        (ALWAYS_ON, "nonsense", 1),
    ],
)
def test_a_run_is_sampled_as_its_start_was(chosen: Sampler, trace: str, kept: int) -> None:
    traced = traced_with(chosen)
    with traced.tracing.work("w").run(claim(trace), RunOutcome()):
        pass
    assert len(traced.spans) == kept


def test_a_context_is_read_as_it_was_written() -> None:
    assert as_text(from_text(TRACE)) == TRACE
    assert as_text(from_text(UNSAMPLED)) == UNSAMPLED


@pytest.mark.parametrize("text", ["", "x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" * 999])
def test_nonsense_is_no_context(text: str) -> None:
    assert not from_text(text).is_valid
    assert not from_metadata([("traceparent", text), ("traceparent-bin", b"\xff")])


def test_starts_are_remembered_up_to_a_number() -> None:
    recent = RecentStarts()
    for i in range(10_001):
        recent.note(RunKey("games", str(i)), from_text(TRACE))
    assert recent.links(RunKey("games", "0")) == []
    assert recent.links(RunKey("games", "1"))[0].context == from_text(TRACE)


def test_what_both_kinds_of_process_are_made_of_loads_no_tracing() -> None:
    # redis-py looks for OpenTelemetry's metrics by itself, and finds them where this is installed.
    code = (
        "import sys, headstart_service.processes.api, headstart_service.processes.worker; "
        "print({'opentelemetry.sdk.trace', 'opentelemetry.exporter', 'opentelemetry.proto', "
        "'headstart_service.telemetry.tracing.tracing'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
