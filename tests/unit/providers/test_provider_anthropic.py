import asyncio
import email.utils
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headstart_service.domain import FailureReason
from headstart_service.domain.errors import StepFailed
from headstart_service.pipelines.bridging.prompt import SYSTEM, Clues, user_prompt
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.work import ModelMetrics
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.step_deadline import end_in
from tests.support.messages_api import MessagesApi, Reply
from tests.support.scrape import parsed, value
from tests.support.waiting import wait_until

KEY = "sk-ant-a-secret-key"
UNREADABLE = "the Anthropic API's answer could not be read"
MALFORMED = "the language model's answer was not in the form asked for"


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    with MessagesApi() as api:
        yield api


async def ask(api: MessagesApi | str, **changes: Any) -> list[str]:
    url = api if isinstance(api, str) else api.url
    arguments: dict[str, Any] = {"api_key": KEY, "model": "claude-haiku-5-5", "base_url": url}
    async with AnthropicModel(**(arguments | changes)) as model:
        prompt = user_prompt("ocean", "forest", 4)
        answer = await model.parse(system=SYSTEM, prompt=prompt, output=Clues, max_tokens=500)
    return answer.clues


async def failure(api: MessagesApi | str, **changes: Any) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await ask(api, **changes)
    for private in (KEY, "secret", "127.0.0.1"):
        assert private not in str(caught.value)
    return caught.value


async def test_an_answer_is_parsed(api: MessagesApi) -> None:
    assert await ask(api) == ["nature", "wilderness", "river", "rain"]


async def test_requests_are_reported_by_their_end_with_repetitions_and_tokens(
    api: MessagesApi,
) -> None:
    figures = ModelMetrics()
    api.script(Reply.status(529), Reply.status(500))
    await ask(api, observer=figures)
    api.script(Reply.status(401))
    await failure(api, observer=figures)
    await failure(api, api_key=None, observer=figures)
    told = parsed(await Exposition([figures]).text())
    count = "headstart_llm_request_duration_seconds_count"
    assert {s.labels["end"]: s.value for s in told[count[:-6]].samples if s.name == count} == {
        "answered": 1,
        "refused": 1,
        "no_key": 1,
    }
    assert value(told, "headstart_llm_retries_total") == 2
    assert value(told, "headstart_llm_tokens_total", kind="input") == 1
    assert value(told, "headstart_llm_tokens_total", kind="output") == 1


async def test_the_request_is_a_structured_one(api: MessagesApi) -> None:
    await ask(api)
    [request] = api.requests
    assert request.key == KEY
    assert request.body["model"] == "claude-haiku-5-5"
    assert request.body["system"] == SYSTEM
    assert json.loads(request.prompt) == {
        "anchor": "ocean", "target": "forest", "number_of_clues": 4
    }  # fmt: skip
    format_ = request.body["output_config"]["format"]
    assert format_["type"] == "json_schema"
    assert format_["schema"]["required"] == ["clues"]


async def test_an_overloaded_api_is_asked_again(api: MessagesApi) -> None:
    api.script(Reply.status(529), Reply.status(529), Reply.clues(["mist"]))
    assert await ask(api) == ["mist"]
    assert len(api.requests) == 3


async def test_an_api_that_stays_overloaded_fails_the_step(api: MessagesApi) -> None:
    api.script(*[Reply.status(529)] * 9)
    failed = await failure(api, patience=0.5)
    assert str(failed) == "the Anthropic API answered 529 (overloaded)"
    assert failed.retry
    assert 2 <= len(api.requests) <= 4


@pytest.mark.parametrize(
    ("code", "said", "retry"),
    [
        (400, "400 (bad request)", False),
        (401, "401 (API key refused)", False),
        (403, "403 (not permitted)", False),
        (404, "404 (no such model)", False),
        (418, "418", False),
        (429, "429 (rate limited)", True),
        (500, "500 (internal error)", True),
        (502, "502", True),
    ],
)
async def test_a_status_is_reported_without_the_body(
    *, api: MessagesApi, code: int, said: str, retry: bool
) -> None:
    api.script(Reply.status(code))
    failed = await failure(api, patience=0)
    assert str(failed) == f"the Anthropic API answered {said}"
    assert failed.retry == retry
    away = FailureReason.DEPENDENCY_AWAY
    assert failed.failure_reason is (away if retry else FailureReason.STEP_FAILED)


async def ends(figures: ModelMetrics) -> dict[str, float]:
    told = parsed(await Exposition([figures]).text())
    count = "headstart_llm_request_duration_seconds_count"
    samples = told[count[:-6]].samples
    return {s.labels["end"]: s.value for s in samples if s.name == count and s.value}


async def test_a_pause_that_the_step_has_no_time_for_is_not_begun(api: MessagesApi) -> None:
    figures = ModelMetrics()
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    for wanted in ("40", later):
        end_in(20)
        api.script(Reply.status(429, retry_after=wanted))
        failed = await failure(api, observer=figures)
        said = "the Anthropic API answered 429 (rate limited), retry after"
        assert str(failed).startswith(said)
        assert not failed.retry
    assert str(failed) != f"{said} 40 s"
    assert len(api.requests) == 2
    assert await ends(figures) == {"rate_limited": 2}


async def test_a_pause_that_the_step_has_time_for_is_made(api: MessagesApi) -> None:
    end_in(20)
    api.script(Reply.status(429, retry_after="0.1"), Reply.clues(["mist"]))
    assert await ask(api) == ["mist"]


async def test_a_request_ends_before_its_step_with_what_is_known_of_it(api: MessagesApi) -> None:
    figures = ModelMetrics()
    end_in(1)
    api.script(Reply.clues(["late"], delay=60))
    late = r"did not answer within 0\.\d+ s"
    assert re.search(late, str(await failure(api, observer=figures)))
    end_in(3)  # enough for the first answer, on a busy machine too
    api.script(Reply.status(529), Reply.clues(["late"], delay=60))
    failed = await failure(api, observer=figures)
    assert str(failed) == "the Anthropic API answered 529 (overloaded)"
    end_in(1)
    api.script(Reply.stream(["a", "b"], pause=60))
    with pytest.raises(StepFailed, match=late):
        await heard(api, observer=figures)
    assert await ends(figures) == {"timeout": 3}


async def test_a_request_whose_step_is_stopped_is_counted(api: MessagesApi) -> None:
    figures = ModelMetrics()
    api.script(Reply.clues(["late"], delay=60), Reply.stream(["a", "b"], pause=60))
    for request in (ask(api, observer=figures), heard(api, observer=figures)):
        sent = len(api.requests)
        task = asyncio.create_task(request)  # type: ignore[arg-type]  # whatever it gives
        await wait_until(lambda sent=sent: len(api.requests) > sent)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    assert await ends(figures) == {"cancelled": 2}


async def test_a_slow_api_times_out(api: MessagesApi) -> None:
    api.script(Reply.clues(["late"], delay=60))
    failed = await failure(api, timeout=0.1, patience=0)
    assert str(failed) == "the Anthropic API did not answer within 0.1 s"


async def test_an_api_that_is_not_there_is_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        failed = await failure(url, patience=0)
    assert str(failed) == "the Anthropic API could not be reached"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"null", b'"text"', b"{}", b'{"content": 5}'])
async def test_a_body_that_is_no_message_is_reported(api: MessagesApi, body: bytes) -> None:
    api.script(Reply.raw(body))
    assert str(await failure(api, patience=0)) in (UNREADABLE, MALFORMED)


@pytest.mark.parametrize("text", ["", "{", "Sure! Here you are", '{"clues": "a"}', "[]", "{}"])
async def test_text_that_is_not_in_form_is_reported(api: MessagesApi, text: str) -> None:
    api.script(Reply.text(text))
    assert str(await failure(api)) == MALFORMED


@pytest.mark.parametrize("text", ["", "I would rather not", '{"clues": []}'])
async def test_a_refusal_is_reported(api: MessagesApi, text: str) -> None:
    api.script(Reply.text(text, stop_reason="refusal"))
    failed = await failure(api)
    assert str(failed) == "the language model declined to answer"
    assert not failed.retry


UNFINISHED = [
    ("max_tokens", "the language model's answer was cut off at its token limit", False, "cut_off"),
    (
        "model_context_window_exceeded",
        "the language model's answer was cut off at the end of its context window",
        False,
        "cut_off",
    ),
    ("pause_turn", "the language model's answer is unfinished: pause_turn", False, "cut_off"),
    ("tool_use", "the language model's answer is unfinished: tool_use", False, "cut_off"),
    (
        "a_secret_reason",
        "the language model's answer is unfinished: it stopped for an unknown reason",
        False,
        "cut_off",
    ),
    ("refusal", "the language model declined to answer", False, "declined"),
    (None, "the language model's answer broke off", True, "unreadable"),
]
"""Stop reasons of answers that are not whole: the failure's text, its retry, and the request's end."""


@pytest.mark.parametrize(("stop_reason", "said", "retry", "end"), UNFINISHED)
async def test_an_answer_that_is_not_whole_fails_with_its_reason(
    *, api: MessagesApi, stop_reason: str | None, said: str, retry: bool, end: str
) -> None:
    figures = ModelMetrics()
    # In the form asked for: nothing but the stop reason shows that there should be more.
    api.script(Reply.text('{"clues": ["river"]}', stop_reason=stop_reason))
    failed = await failure(api, observer=figures)
    assert (str(failed), failed.retry) == (said, retry)
    told = parsed(await Exposition([figures]).text())
    assert value(told, "headstart_llm_request_duration_seconds_count", end=end) == 1


@pytest.mark.parametrize("key", [None, "", "  \n"])
async def test_without_a_key_nothing_is_sent(api: MessagesApi, key: str | None) -> None:
    failed = await failure(api, api_key=key)
    assert str(failed).startswith("no Anthropic API key: set ANTHROPIC_API_KEY, or another")
    assert not failed.retry
    assert api.requests == []


async def test_a_key_that_no_header_can_carry_fails_the_step(api: MessagesApi) -> None:
    failed = await failure(api, api_key="sk-ant\nx", patience=0)
    assert "sk-ant" not in str(failed)
    assert api.requests == []


def test_without_a_key_the_sdk_is_not_even_imported() -> None:
    code = (
        "import asyncio, sys\n"
        "from headstart_service.providers.anthropic import AnthropicModel\n"
        "async def main():\n"
        "    async with AnthropicModel(api_key=None, model='m'): print('anthropic' in sys.modules)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_using_it_before_entering_is_a_mistake() -> None:
    model = AnthropicModel(api_key=KEY, model="m")
    with pytest.raises(RuntimeError, match="outside its async with block"):
        await model.parse(system="s", prompt="p", output=Clues, max_tokens=1)


async def test_logs_hold_no_key(api: MessagesApi, caplog: pytest.LogCaptureFixture) -> None:
    api.script(Reply.status(500), Reply.text("no JSON"))
    with caplog.at_level(logging.DEBUG):
        await failure(api)
    assert caplog.messages
    assert KEY not in caplog.text


def test_the_fake_api_runs_as_a_process_of_its_own() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.messages_api", "--delay", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            import asyncio

            assert len(asyncio.run(ask(url))) == 4
        finally:
            process.terminate()


async def heard(api: MessagesApi, *, enough: int = 1000, **changes: Any) -> tuple[list[str], Any]:
    """The pieces of a streamed answer, the first so many of them, and what is known of it."""
    pieces: list[str] = []
    arguments: dict[str, Any] = {"api_key": KEY, "model": "claude-haiku-5-5", "base_url": api.url}
    async with AnthropicModel(**(arguments | changes)) as model:
        async with model.stream(system="Be brief.", prompt="Why?", max_tokens=50) as spoken:
            async for text in spoken:
                pieces.append(text)
                if len(pieces) == enough:
                    break
    return pieces, spoken


async def test_an_answer_is_received_piece_by_piece(api: MessagesApi) -> None:
    api.script(Reply.stream(["Be", "cause", "."]))
    figures, token = ModelMetrics(), METER.set(meter := CostMeter())
    pieces, spoken = await heard(api, observer=figures)
    METER.reset(token)
    assert pieces == ["Be", "cause", "."]
    assert (spoken.input_tokens, spoken.output_tokens) == (11, 3)
    assert spoken.stop_reason == "end_turn"
    assert meter.llm_tokens == 14
    told = parsed(await Exposition([figures]).text())
    assert value(told, "headstart_llm_request_duration_seconds_count", end="answered") == 1
    assert value(told, "headstart_llm_tokens_total", kind="output") == 3
    [request] = api.requests
    assert (request.body["stream"], request.body["system"]) == (True, "Be brief.")


async def test_a_stream_that_is_left_is_stopped(api: MessagesApi) -> None:
    api.script(Reply.stream(["a"] * 1000, pause=0.01))
    pieces, spoken = await heard(api, enough=2)
    assert (pieces, spoken.stop_reason) == (["a", "a"], "")
    await wait_until(lambda: api.abandoned == 1)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply.status(401), "the Anthropic API answered 401 (API key refused)"),
        (Reply.stream(["a"], cut=True), "the language model's answer broke off"),
        (Reply.stream(["a"], error="overloaded_error"), "the Anthropic API broke its answer off"),
    ],
)
async def test_a_stream_that_fails_reports_why(api: MessagesApi, reply: Reply, said: str) -> None:
    api.script(reply)
    with pytest.raises(StepFailed) as caught:
        await heard(api, patience=0)
    assert str(caught.value) == said


@pytest.mark.parametrize(("stop_reason", "said", "retry", "end"), UNFINISHED)
async def test_a_stream_that_is_not_whole_fails_at_its_end(
    *, api: MessagesApi, stop_reason: str | None, said: str, retry: bool, end: str
) -> None:
    figures, given = ModelMetrics(), ""
    api.script(Reply.stream(["Half ", "a sen"], stop_reason=stop_reason))
    async with AnthropicModel(api_key=KEY, model="m", base_url=api.url, observer=figures) as model:
        with pytest.raises(StepFailed) as caught:
            async with model.stream(system="s", prompt="p", max_tokens=2) as spoken:
                async for text in spoken:
                    given += text
    assert (str(caught.value), caught.value.retry) == (said, retry)
    assert (given, spoken.stop_reason) == ("Half a sen", stop_reason or "")
    told = parsed(await Exposition([figures]).text())
    assert value(told, "headstart_llm_request_duration_seconds_count", end=end) == 1
    assert value(told, "headstart_llm_tokens_total", kind="output") == 2


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence"])
async def test_an_answer_that_is_whole_succeeds(api: MessagesApi, stop_reason: str) -> None:
    api.script(Reply.text('{"clues": ["river"]}', stop_reason=stop_reason))
    assert await ask(api) == ["river"]
    api.script(Reply.stream(["All."], stop_reason=stop_reason))
    pieces, spoken = await heard(api)
    assert (pieces, spoken.stop_reason) == (["All."], stop_reason)


async def test_a_step_may_keep_what_a_cut_off_stream_gave(api: MessagesApi) -> None:
    figures, kept = ModelMetrics(), ""
    api.script(Reply.stream(["Half ", "a sen"], stop_reason="max_tokens"))
    async with AnthropicModel(api_key=KEY, model="m", base_url=api.url, observer=figures) as model:
        async with model.stream(system="s", prompt="p", max_tokens=2) as spoken:
            with pytest.raises(StepFailed):
                async for text in spoken:
                    kept += text
    assert (kept, spoken.stop_reason) == ("Half a sen", "max_tokens")
    told = parsed(await Exposition([figures]).text())
    assert value(told, "headstart_llm_request_duration_seconds_count", end="cut_off") == 1


async def test_a_connection_that_closes_early_fails_the_stream(api: MessagesApi) -> None:
    api.script(Reply.stream(["Half ", "a sen"], dropped=True))
    with pytest.raises(StepFailed, match="could not be reached") as caught:
        await heard(api, patience=0)
    assert caught.value.retry


async def test_a_stream_that_stalls_times_out(api: MessagesApi) -> None:
    api.script(Reply.stream(["a", "b"], pause=60))
    with pytest.raises(StepFailed, match=r"did not answer within 0\.2 s"):
        await heard(api, timeout=0.2, patience=0)


async def test_what_a_step_raises_while_it_listens_is_its_own(api: MessagesApi) -> None:
    api.script(Reply.stream(["a", "b"]))
    async with AnthropicModel(api_key=KEY, model="m", base_url=api.url) as model:
        with pytest.raises(ValueError, match="mine"):
            async with model.stream(system="s", prompt="p", max_tokens=5) as spoken:
                async for _ in spoken:
                    raise ValueError("mine")
