"""What OpenAI's dialect does by itself: many servers speak it, and not all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from headstart_service.domain.errors import StepFailed
from headstart_service.providers.openai import OpenAIModel
from tests.support.completions_api import CompletionsApi, chunks, completion, refused
from tests.support.messages_api import Reply


class Words(BaseModel):
    words: list[str]
    note: str = Field("", description="Anything else.")


class Table(BaseModel):
    rows: dict[str, int]


WORDS = '{"words": ["river"], "note": ""}'


@pytest.fixture
def api() -> Iterator[CompletionsApi]:
    with CompletionsApi() as api:
        yield api


def model_at(api: CompletionsApi, **changes: Any) -> OpenAIModel:
    own: dict[str, Any] = {"api_key": None, "model": "m", "base_url": api.url}
    return OpenAIModel(**(own | changes))


async def words(model: OpenAIModel) -> list[str]:
    answer = await model.parse(system="Say words.", prompt="p", output=Words, max_tokens=50)
    return answer.words


async def test_a_form_is_asked_for_by_a_strict_schema(api: CompletionsApi) -> None:
    async with model_at(api) as model:
        assert len(await words(model)) == 8
    [request] = api.requests
    form = request.body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    schema = form["json_schema"]["schema"]
    assert schema["required"] == ["words", "note"]
    assert schema["additionalProperties"] is False
    assert request.body["max_tokens"] == 50


async def test_a_server_that_refuses_schemas_is_asked_in_words_from_then_on(
    api: CompletionsApi,
) -> None:
    api.script(refused(400, "Unknown parameter: 'response_format'"), completion(WORDS))
    async with model_at(api) as model:
        assert await words(model) == ["river"]
        api.script(completion(WORDS))
        assert await words(model) == ["river"]
    _, again, later = (request.body for request in api.requests)
    for body in (again, later):
        assert "response_format" not in body
        assert body["messages"][0]["content"].startswith("Say words.\n\nAnswer with JSON alone")
        assert '"required":["words"]' in body["messages"][0]["content"]


async def test_a_server_that_ignores_schemas_is_asked_in_words_too(api: CompletionsApi) -> None:
    api.script(completion("Sure! River."), completion(WORDS))
    async with model_at(api) as model:
        assert await words(model) == ["river"]
    _, again = (request.body for request in api.requests)
    assert "response_format" in again
    assert "JSON Schema" in again["messages"][0]["content"]


async def test_what_one_server_has_not_is_left_out(api: CompletionsApi) -> None:
    async with model_at(api) as model:
        newer = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        api.script(refused(400, newer), completion("a"))
        await model.text(prompt="p", max_tokens=7)
        assert api.requests[-1].body["max_completion_tokens"] == 7
        api.script(refused(422, "stream_options: extra fields not permitted"), chunks(["a", "b"]))
        async with model.stream(system="", prompt="p", max_tokens=7) as answer:
            assert [text async for text in answer] == ["a", "b"]
        assert "stream_options" not in api.requests[-1].body
        api.script(refused(400, "max_completion_tokens: unknown field"), completion("a"))
        await model.text(prompt="p", max_tokens=7)
        assert api.requests[-1].body["max_tokens"] == 7
        api.script(refused(400, "the prompt is too long"))
        with pytest.raises(StepFailed, match=r"answered 400 \(bad request\)"):
            await model.text(prompt="p", max_tokens=7)
    assert len(api.requests) == 7


async def test_a_model_that_no_strict_schema_has_is_asked_for_too(api: CompletionsApi) -> None:
    api.script(refused(400, "Invalid schema for response_format"), completion('{"rows": {"a": 1}}'))
    async with model_at(api) as model:
        answer = await model.parse(system="", prompt="p", output=Table, max_tokens=9)
    assert answer.rows == {"a": 1}


async def test_a_refusal_in_a_field_of_its_own_is_one(api: CompletionsApi) -> None:
    api.script(completion(None, refusal="I must not."))
    async with model_at(api) as model:
        with pytest.raises(StepFailed, match="declined to answer"):
            await words(model)
        refusal = {"choices": [{"index": 0, "delta": {"refusal": "no"}}]}
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        data = [json.dumps(each) for each in (refusal, end)]
        pieces = tuple(f"data: {each}\n\n".encode() for each in (*data, "[DONE]"))
        api.script(Reply(200, b"", chunks([]).headers, pieces=pieces))
        with pytest.raises(StepFailed, match="declined to answer"):
            async with model.stream(system="", prompt="p", max_tokens=9) as answer:
                assert [text async for text in answer] == []


async def test_a_question_that_a_filter_refuses_is_declined(api: CompletionsApi) -> None:
    error = {"error": {"message": "filtered", "code": "content_filter"}}
    api.script(*[Reply(400, json.dumps(error).encode())] * 2)
    async with model_at(api) as model:
        with pytest.raises(StepFailed, match="declined to answer"):
            await words(model)
        with pytest.raises(StepFailed, match="declined to answer"):
            async with model.stream(system="", prompt="p", max_tokens=9) as answer:
                assert [text async for text in answer] == []


async def test_another_server_needs_no_key_and_openais_own_does(api: CompletionsApi) -> None:
    async with model_at(api) as model:
        assert (await model.text(prompt="p", max_tokens=9)).text
    for url in (None, "https://api.openai.com/v1", "https://x.openai.azure.com/openai/v1/"):
        async with OpenAIModel(api_key=" ", model="m", base_url=url) as model:
            assert not await model.warm()
            with pytest.raises(StepFailed, match="no OpenAI API key: set OPENAI_API_KEY") as caught:
                await model.text(prompt="p", max_tokens=9)
        assert not caught.value.retry


def test_its_identity_has_the_apis_name_and_no_address() -> None:
    model = OpenAIModel(api_key=None, model="org/a model", base_url="http://127.0.0.1:9/v1")
    assert model.identity == "openai:org/a%20model"


def test_importing_it_imports_no_sdk() -> None:
    code = "import sys, headstart_service.providers.openai as o; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
