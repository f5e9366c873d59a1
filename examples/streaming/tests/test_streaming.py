"""With the real SDK, against a Messages API on loopback that streams as Anthropic's does."""

from __future__ import annotations

import pytest
from headstart_streaming import PIPELINE, Summary

from headstart.testing import run_pipeline
from headstart_service.providers.anthropic import AnthropicModel
from tests.support.messages_api import MessagesApi, Reply
from tests.support.waiting import wait_until

DOCUMENT = "word " * 476


@pytest.fixture
def api():
    with MessagesApi() as api:
        yield api


async def run(api: MessagesApi, **inputs):
    async with AnthropicModel(api_key="key", model="claude-haiku-5-5", base_url=api.url) as model:
        inputs = {"document": DOCUMENT, "sentences": 2} | inputs
        return await run_pipeline(PIPELINE, inputs, providers={"language_model": model})


async def summary(api: MessagesApi, **inputs) -> Summary:
    ended = await run(api, **inputs)
    return Summary.model_validate(ended.values["summary"])


async def test_a_finished_answer_is_kept_with_its_tokens(api: MessagesApi):
    api.script(Reply.stream(["It is ", "short. ", "It is good."]))
    assert await summary(api) == Summary(
        text="It is short. It is good.",
        ended="finished",
        sentences=2,
        input_tokens=11,
        output_tokens=3,
    )
    [request] = api.requests
    assert request.body["stream"] is True
    assert DOCUMENT in request.prompt


async def test_the_model_is_stopped_when_it_has_given_enough(api: MessagesApi):
    api.script(Reply.stream(["One. ", "Two! ", "Three. "] + ["And on. "] * 1000, pause=0.005))
    found = await summary(api)
    assert (found.text, found.ended, found.sentences) == ("One. Two!", "enough", 2)
    await wait_until(lambda: api.abandoned == 1)


async def test_the_text_before_patience_ended_is_kept(api: MessagesApi):
    api.script(Reply.stream(["One. ", "Two is only ha", *["lf"] * 10_000], pause=0.01))
    found = await summary(api, patience=1.0)
    assert (found.text, found.ended, found.sentences) == ("One.", "patience", 1)


async def test_the_text_before_the_token_limit_is_kept_and_marked_as_cut(api: MessagesApi):
    api.script(Reply.stream(["One. ", "Two is only ha"], stop_reason="max_tokens"))
    found = await summary(api)
    assert (found.text, found.ended, found.sentences) == ("One.", "limit", 1)
    assert (found.input_tokens, found.output_tokens) == (11, 2)


async def test_an_answer_that_breaks_off_fails_the_step(api: MessagesApi):
    api.script(*[Reply.stream(["One. ", "Two."], cut=True)] * 2)
    ended = await run(api)
    assert ended.steps["summary"].error == "the language model's answer broke off"
    assert ended.steps["summary"].attempts == 2


async def test_half_a_sentence_is_better_than_none(api: MessagesApi):
    api.script(Reply.stream(["It is", *[" very"] * 10_000], pause=0.01))
    found = await summary(api, patience=0.5)
    assert found.text.startswith("It is very")
    assert (found.ended, found.sentences) == ("patience", 0)


async def test_a_model_that_says_nothing_fails_the_step_alone(api: MessagesApi):
    api.script(*[Reply.stream(["late"], delay=60)] * 2)
    ended = await run(api, patience=0.2)
    assert ended.status == "completed"
    assert ended.values["reading_minutes"] == 2.0
    assert ended.steps["summary"].error == "the language model said nothing within 0.2 s"
    assert ended.steps["summary"].attempts == 2
