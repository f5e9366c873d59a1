"""With the real SDK, against a Messages API on loopback, and an embedder without a model."""

from __future__ import annotations

import pytest
from headstart_support import PIPELINE, Answer, Found, Turn, question

from headstart.testing import PipelineRun, run_pipeline
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.sdk import StepFailed
from tests.support.bag_of_words import BagOfWords
from tests.support.messages_api import MessagesApi, Reply

ARTICLES = [
    {"id": "returns", "text": "You can return shoes within 30 days.\n\nReturns are free."},
    {"id": "sizes", "text": "Our shoes are small: choose one size more."},
]
CONVERSATION = [{"by": "customer", "text": "Can I return shoes after 20 days?"}]


@pytest.fixture
def api():
    with MessagesApi() as api:
        yield api


async def run(api: MessagesApi, **inputs) -> PipelineRun:
    inputs = {"conversation": CONVERSATION, "articles": ARTICLES, "count": 2} | inputs
    async with AnthropicModel(api_key="key", model="claude-haiku-5-5", base_url=api.url) as model:
        providers = {"language_model": model, "embedder": BagOfWords()}
        return await run_pipeline(PIPELINE, inputs, providers=providers)


async def test_the_answer_names_the_articles_that_it_is_from(api: MessagesApi):
    api.script(Reply.stream(["Yes, within ", "30 days [returns]."]))
    ended = await run(api)
    assert ended.values["answer"] == Answer(
        text="Yes, within 30 days [returns].", sources=["returns"], whole=True
    )
    [request] = api.requests
    assert "[returns] You can return shoes within 30 days." in request.prompt
    assert "customer: Can I return shoes after 20 days?" in request.prompt


async def test_a_sentence_that_is_typed_is_answered_when_it_has_settled():
    searches, answers = (PIPELINE.by_name[name].settle for name in ("passages", "answer"))
    assert 0 < searches < answers


async def test_passages_are_the_paragraphs_that_fit_best(api: MessagesApi):
    api.script(Reply.stream(["Yes."]))
    found: list[Found] = (await run(api, count=1)).values["passages"]
    assert [(each.article, each.text) for each in found] == [
        ("returns", "You can return shoes within 30 days.")
    ]


async def test_without_a_passage_that_fits_no_model_is_called(api: MessagesApi):
    ended = await run(api, conversation=[{"by": "customer", "text": "Bonjour!"}])
    assert ended.status == "completed"
    assert ended.steps["answer"].error == "no passage fits the question"
    assert api.requests == []


async def test_an_answer_that_was_cut_is_kept_and_says_so(api: MessagesApi):
    api.script(Reply.stream(["Yes, within"], stop_reason="max_tokens"))
    answer: Answer = (await run(api)).values["answer"]
    assert (answer.text, answer.whole) == ("Yes, within", False)


async def test_a_model_that_is_away_leaves_the_passages(api: MessagesApi):
    api.script(*[Reply.stream(["Yes"], cut=True)] * 2)
    ended = await run(api)
    assert ended.steps["answer"].state == "failed"
    assert ended.values["passages"]


async def test_the_search_has_the_last_turns_of_the_customer_alone():
    turns = [Turn(by="customer", text=text) for text in "abcd"]
    assert await question([*turns, Turn(by="support", text="e")]) == "b\nc\nd"
    with pytest.raises(StepFailed, match="the customer has said nothing"):
        await question([Turn(by="support", text="Hello!")])
