"""What steps may rely on, whichever API serves the language model: with both real SDKs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from headstart_service.domain import ProviderNews, Rates, Settlement
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.language_model import Usage
from headstart_service.pipeline.step import step
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.providers.governed_model import GovernedModel
from headstart_service.providers.governor import Governor, GovernorRules
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.providers.openai import OpenAIModel
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.work import ModelMetrics
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.run import run
from headstart_service.worker.step_caller import CALLER, StepCaller
from headstart_service.worker.step_deadline import end_in
from tests.support.completions_api import CompletionsApi, chunks, completion, refused
from tests.support.ledger import Ledger, claim_of, pipeline_of
from tests.support.messages_api import MessagesApi, Reply
from tests.support.scrape import parsed, value
from tests.support.waiting import wait_until

KEY = "a-secret-key"
CACHED = Usage(input_tokens=7, output_tokens=3, cache_read_tokens=95, cache_write_tokens=20)


class Words(BaseModel):
    words: list[str]


@dataclass
class Spoken:
    """One dialect: its server, its replies, and how messages call it."""

    api: MessagesApi
    title: str
    model_of: Callable[..., GovernedModel]
    text: Callable[..., Reply]
    stream: Callable[..., Reply]
    status: Callable[..., Reply]
    stop: str
    """What its replies' reason to stop is called."""
    stops: dict[str, str]
    cached: dict[str, Any]
    """The usage CACHED as it is sent."""

    def model(self, **changes: Any) -> AbstractAsyncContextManager[GovernedModel]:
        own: dict[str, Any] = {"api_key": KEY, "model": "m", "base_url": self.api.url}
        return self.model_of(**(own | changes))

    def stopping(self, reason: str) -> dict[str, Any]:
        return {self.stop: self.stops.get(reason, reason)}


@pytest.fixture(params=["anthropic", "openai"])
def spoken(request: pytest.FixtureRequest) -> Iterator[Spoken]:
    if request.param == "anthropic":
        with MessagesApi() as api:
            cached = {
                "input_tokens": 7,
                "output_tokens": 3,
                "cache_read_input_tokens": 95,
                "cache_creation_input_tokens": 20,
            }
            yield Spoken(
                *(api, "the Anthropic API", AnthropicModel, Reply.text, Reply.stream, Reply.status),
                stop="stop_reason",
                stops={},
                cached=cached,
            )
        return
    with CompletionsApi() as api:
        details = {"cached_tokens": 95, "cache_write_tokens": 20}
        cached = {
            "prompt_tokens": 122,
            "completion_tokens": 3,
            "total_tokens": 125,
            "prompt_tokens_details": details,
        }
        yield Spoken(
            *(api, "the OpenAI-compatible API", OpenAIModel, completion, chunks, refused),
            stop="finish_reason",
            stops={"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter"},
            cached=cached,
        )


async def asked(spoken: Spoken, **changes: Any) -> str:
    async with spoken.model(**changes) as model:
        return (await model.text(prompt="Why?", max_tokens=9, system="Be brief.")).text


async def parsed_words(spoken: Spoken, **changes: Any) -> list[str]:
    async with spoken.model(**changes) as model:
        answer = await model.parse(system="s", prompt="p", output=Words, max_tokens=9)
    return answer.words


async def heard(spoken: Spoken, given: list[str] | None = None, **changes: Any) -> list[str]:
    pieces: list[str] = [] if given is None else given
    async with spoken.model(**changes) as model:
        async with model.stream(system="s", prompt="p", max_tokens=9) as answer:
            async for text in answer:
                pieces.append(text)  # noqa: PERF401  # a part is kept where the end fails
    return pieces


ASKING = [asked, parsed_words, heard]


async def test_an_answer_has_its_text_its_usage_and_why_it_ended(spoken: Spoken) -> None:
    spoken.api.script(spoken.text("Because.", usage=spoken.cached))
    figures, token = ModelMetrics(), METER.set(meter := CostMeter())
    async with spoken.model(observer=figures) as model:
        answer = await model.text(prompt="Why?", max_tokens=9, system="Be brief.")
    METER.reset(token)
    assert (answer.text, answer.stop_reason, answer.usage) == ("Because.", "end_turn", CACHED)
    assert meter.llm_tokens == 30
    told = parsed(await Exposition([figures]).text())
    kinds = ("input", "output", "cache_read", "cache_write")
    counted = [value(told, "headstart_llm_tokens_total", kind=kind) for kind in kinds]
    assert counted == [7, 3, 95, 20]
    [request] = spoken.api.requests
    assert request.key == KEY
    assert request.body["model"] == "m"


async def test_a_call_that_may_go_into_a_batch_is_direct_where_nothing_keeps_batches(
    spoken: Spoken,
) -> None:
    token = CALLER.set(StepCaller("games", "r", 1, time.monotonic() + 7200, "k", "1-0", 1))
    spoken.api.script(spoken.text("Because."))
    async with spoken.model() as model:
        answer = await model.text(prompt="Why?", max_tokens=9, batch=True)
    CALLER.reset(token)
    assert answer.text == "Because."
    assert len(spoken.api.requests) == 1


async def test_budgets_count_a_token_of_the_cache_as_a_tenth(spoken: Spoken) -> None:
    class Noting(LocalPermits):
        async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
            noted.append((settled.tokens, settled.cached_tokens))
            return await super().settle(provider, settled, rates)

    noted: list[tuple[int, int]] = []
    governor = Governor("p", "the API", Noting(), GovernorRules(lease=60))
    spoken.api.script(
        spoken.text("Because.", usage=spoken.cached), spoken.stream(["a"], usage=spoken.cached)
    )
    async with spoken.model(governor=governor) as model:
        await model.text(prompt="Why?", max_tokens=9)
        async with model.stream(system="s", prompt="p", max_tokens=9) as answer:
            assert [text async for text in answer] == ["a"]
    stream_tokens = 40 if answer.output_tokens == 3 else 38
    assert noted == [(40, 95), (stream_tokens, 95)]


@pytest.mark.parametrize("reported", [True, False])
async def test_a_cut_off_answer_counts_its_tokens_in_the_ledger_and_its_budget(
    *, spoken: Spoken, reported: bool
) -> None:
    class Noting(LocalPermits):
        async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
            noted.append(settled.tokens)
            return await super().settle(provider, settled, rates)

    @step(max_attempts=2)
    async def talk(language_model: object) -> list[str]:
        governor = Governor("p", "the API", Noting(), GovernorRules(lease=60))
        return await parsed_words(spoken, governor=governor)

    noted: list[int] = []
    nothing = dict.fromkeys(("input_tokens", "output_tokens"), 0)
    usage = spoken.cached if reported else nothing
    half = '{"words": ["an answer that is half'
    spoken.api.script(spoken.text(half, usage=usage, **spoken.stopping("max_tokens")))
    pipeline, ledger = pipeline_of(talk), Ledger()
    await run(claim_of(pipeline), pipeline, {"language_model": object()}, ledger)
    assert ledger.report("talk").error.endswith("was cut off at its token limit")
    work = ledger.records["talk"].work
    assert work is not None
    about = len(half) // 4
    assert (work.llm_tokens, noted) == ((30, [40]) if reported else (about, [about]))


async def test_a_conversation_is_sent_turn_by_turn(spoken: Spoken) -> None:
    turns: Any = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Why?"},
    ]
    async with spoken.model() as model:
        await model.text(prompt=turns, max_tokens=9, system="Be brief.")
        sent = spoken.api.requests[0].body["messages"]
        assert [each for each in sent if each["role"] != "system"] == turns
        for wrong, said in (
            ([], "the last turn must be the user's"),
            (turns[:2], "the last turn must be the user's"),
            ([{"role": "system", "content": "x"}], "prompt.0.: role is 'system': must be user or"),
            ([{"role": "user", "content": 5}], "prompt.0.: content must be a str"),
        ):
            with pytest.raises((ValueError, TypeError), match=said):
                await model.text(prompt=wrong, max_tokens=9)
        with pytest.raises(ValueError, match="max_tokens = 0: must be 1 or more"):
            await model.text(prompt="p", max_tokens=0)
    assert len(spoken.api.requests) == 1


STOPS = [
    ("max_tokens", "the language model's answer was cut off at its token limit", False),
    ("refusal", "the language model declined to answer", False),
    (
        "a_secret_reason",
        "the language model's answer is unfinished: it stopped for an unknown reason",
        False,
    ),
    (None, "the language model's answer broke off", True),
]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(("stop", "said", "retry"), STOPS)
async def test_an_answer_that_is_not_whole_fails_and_keeps_what_was_streamed(
    *, spoken: Spoken, ask: Any, stop: str | None, said: str, retry: bool
) -> None:
    how: Any = {spoken.stop: None} if stop is None else spoken.stopping(stop)
    # In the form asked for: nothing but the stop reason shows that there should be more.
    whole = '{"words": ["river"]}'
    streams = ask is heard
    spoken.api.script(spoken.stream([whole], **how) if streams else spoken.text(whole, **how))
    given: list[str] = []
    with pytest.raises(StepFailed) as caught:
        await (heard(spoken, given) if streams else ask(spoken))
    assert (str(caught.value), caught.value.retry) == (said, retry)
    assert given == ([whole] if streams else [])


@pytest.mark.parametrize("ask", ASKING)
async def test_a_refused_key_fails_at_once_without_the_apis_text(spoken: Spoken, ask: Any) -> None:
    spoken.api.script(spoken.status(401))
    with pytest.raises(StepFailed) as caught:
        await ask(spoken)
    assert str(caught.value) == f"{spoken.title} answered 401 (API key refused)"
    assert not caught.value.retry
    assert len(spoken.api.requests) == 1


@pytest.mark.parametrize("ask", ASKING)
async def test_too_many_calls_are_made_again_after_the_pause_that_the_api_wants(
    spoken: Spoken, ask: Any
) -> None:
    spoken.api.script(spoken.status(429, retry_after="0.3"))
    began = time.monotonic()
    assert await ask(spoken)
    assert time.monotonic() - began >= 0.3
    assert len(spoken.api.requests) == 2


async def test_a_longer_pause_than_the_step_has_is_not_begun(spoken: Spoken) -> None:
    end_in(5)
    spoken.api.script(spoken.status(429, retry_after="40"))
    with pytest.raises(StepFailed, match=r"answered 429 \(rate limited\), retry after 40 s"):
        await asked(spoken)


async def test_an_api_that_hangs_times_out(spoken: Spoken) -> None:
    late = f"{spoken.title} did not answer within 0.2 s"
    spoken.api.script(spoken.text("late", delay=60))
    with pytest.raises(StepFailed, match=late):
        await asked(spoken, timeout=0.2, patience=0)
    spoken.api.script(spoken.stream(["a", "b"], pause=60))
    with pytest.raises(StepFailed, match=late):
        await heard(spoken, timeout=0.2, patience=0)


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"null", b'"text"', b"{}", b"<html>"])
async def test_a_body_that_is_no_answer_is_reported(spoken: Spoken, body: bytes) -> None:
    spoken.api.script(Reply.raw(body))
    with pytest.raises(StepFailed, match=f"{spoken.title}'s answer could not be read"):
        await asked(spoken, patience=0)


async def test_a_stream_that_breaks_fails_its_step(spoken: Spoken) -> None:
    event = b"event: content_block_delta\ndata: %s\n\n"
    wrong = [b"{", b'"text"', b"[5]"]
    for chunk in wrong:
        pieces = (*spoken.stream(["a"]).pieces[:-3], event % chunk)
        spoken.api.script(Reply(200, b"", {"content-type": "text/event-stream"}, pieces=pieces))
        with pytest.raises(StepFailed, match=r"could not be read|broke off"):
            await heard(spoken, patience=0)
    spoken.api.script(spoken.stream(["a", "b"], dropped=True))
    with pytest.raises(StepFailed, match=f"{spoken.title} could not be reached"):
        await heard(spoken, patience=0)
    error: Any = "api_error" if spoken.stop == "stop_reason" else True
    spoken.api.script(spoken.stream(["a"], error=error))
    with pytest.raises(StepFailed, match=f"{spoken.title} broke its answer off"):
        await heard(spoken, patience=0)


@pytest.mark.parametrize("ask", ASKING)
async def test_cancelling_a_step_closes_the_connection_of_its_answer(
    spoken: Spoken, ask: Any
) -> None:
    # Nothing more is written, so only a closed connection shows the server that nobody waits.
    late = spoken.stream(["a", "b"], pause=60) if ask is heard else spoken.text("x", delay=60)
    spoken.api.script(late)
    async with spoken.model() as model:

        async def answer() -> None:
            if ask is heard:
                async with model.stream(system="s", prompt="p", max_tokens=9) as pieces:
                    async for _ in pieces:
                        pass
            else:
                await model.text(prompt="p", max_tokens=9)

        task = asyncio.create_task(answer())
        await wait_until(lambda: spoken.api.requests)
        task.cancel()
        await asyncio.wait({task})
        await wait_until(lambda: spoken.api.left_at)


async def test_a_stream_that_is_left_between_two_pieces_is_stopped(spoken: Spoken) -> None:
    spoken.api.script(spoken.stream(["a", "b"], pause=0.05, **spoken.stopping("end_turn")))
    async with spoken.model() as model:
        async with model.stream(system="s", prompt="p", max_tokens=9) as pieces:
            async for text in pieces:
                assert text == "a"
                break
        await wait_until(lambda: spoken.api.left_at)
    assert pieces.stop_reason == ""


async def test_warming_makes_one_call_that_costs_nothing(
    spoken: Spoken, caplog: pytest.LogCaptureFixture
) -> None:
    async with spoken.model() as model:
        assert await model.warm()
        assert len(spoken.api.lookups) == 1
        assert spoken.api.requests == []
        assert await model.warm(system="A long system prompt.")
    [request] = spoken.api.requests
    assert list(request.body.values()).count(1) == 1, "one token is asked for"
    async with spoken.model(base_url="http://127.0.0.1:9/v1", patience=0) as away:
        with caplog.at_level(logging.INFO):
            assert not await away.warm()
            assert not await away.warm(system="s")
    assert f"{spoken.title} is not warm" in caplog.text


async def test_warming_reports_a_refused_key_and_takes_any_other_answer(
    spoken: Spoken, caplog: pytest.LogCaptureFixture
) -> None:
    async with spoken.model() as model:
        spoken.api.lookup_status = 404
        assert await model.warm(), "not each gateway lists its models"
        assert caplog.messages == []
        spoken.api.lookup_status = 401
        assert not await model.warm()
    assert f"{spoken.title} refuses the key of" in caplog.text
    assert KEY not in caplog.text


async def test_the_system_prompt_is_kept_in_the_cache_where_the_api_wants_to_be_asked(
    spoken: Spoken,
) -> None:
    async with spoken.model() as model:
        await model.text(prompt="p", max_tokens=9, system="Long.", cache=True)
        await model.parse(system="Long.", prompt="p", output=Words, max_tokens=9, cache=True)
        async with model.stream(system="Long.", prompt="p", max_tokens=9, cache=True) as answer:
            assert [text async for text in answer]
    for request in spoken.api.requests:
        if spoken.stop == "stop_reason":
            kept = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}
            assert request.body["system"] == [kept]
        else:
            assert request.body["messages"][0] == {"role": "system", "content": "Long."}


@pytest.mark.parametrize("text", ["", "Sure! Here you are", '{"words": "a"}', "[]", "{}"])
async def test_an_answer_in_another_form_fails(spoken: Spoken, text: str) -> None:
    spoken.api.script(spoken.text(text), spoken.text(text))
    with pytest.raises(StepFailed, match="was not in the form asked for"):
        await parsed_words(spoken)


async def test_a_fence_around_json_is_left_out(spoken: Spoken) -> None:
    fenced = '```json\n{"words": ["mist"]}\n```'
    spoken.api.script(spoken.text(fenced), spoken.text(fenced))
    assert await parsed_words(spoken) == ["mist"]


def test_a_token_counts_once_and_one_of_the_cache_as_a_tenth() -> None:
    assert (CACHED.computed, CACHED.charged) == (30, 40)
    assert (CACHED + CACHED).charged == 79
    assert Usage(cache_read_tokens=1).charged == 1
