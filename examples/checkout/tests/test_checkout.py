"""Eight carriers as one transport: some answer, others are slow, broken or away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx2
import pydantic
import pytest
from headstart_checkout import CARRIERS, PIPELINE, Choice, Gateway, Offer, choices, quotes

from headstart.testing import PipelineRun, run_pipeline
from headstart_service.sdk import FailureReason, Item, Pipeline, StepFailed

INPUTS = {
    "parcel": {"grams": 900, "longest_cm": 30},
    "country": "DE",
    "postcode": "10115",
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the provider, as the installed package does."""
    monkeypatch.setenv("HEADSTART_PROVIDERS", "headstart_checkout:gateway")


def offers(cents: int, days: int) -> httpx2.Response:
    return httpx2.Response(200, json=[{"service": "parcel", "cents": cents, "days": days}])


async def run(
    answer: Callable[[str], Awaitable[httpx2.Response]], pipeline: Pipeline = PIPELINE, **inputs
) -> PipelineRun:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        assert json.loads(request.content)["postcode"] == "10115"
        assert request.url.host == "carriers.test"
        return await answer(request.url.path.removeprefix("/"))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as http:
        providers = {"http": http, "gateway": Gateway(url="https://carriers.test")}
        return await run_pipeline(pipeline, INPUTS | inputs, providers=providers)


async def test_the_cheapest_and_the_fastest_of_eight_are_found():
    async def answer(carrier: str) -> httpx2.Response:
        place = CARRIERS.index(carrier)
        return offers(500 - place * 10, 1 + place)

    found = (await run(answer)).values["choices"]
    assert found.cheapest == Choice(carrier="hen", service="parcel", cents=430, days=8)
    assert found.fastest.carrier == "ant"
    assert found.without == []


async def test_a_carrier_with_a_problem_is_named_and_keeps_no_other():
    async def answer(carrier: str) -> httpx2.Response:
        match carrier:
            case "ant":
                await asyncio.Event().wait()
            case "bee":
                return httpx2.Response(503)
            case "cat":
                raise httpx2.ConnectError("refused")
            case "dog":
                return httpx2.Response(200, json=[{"service": "air", "cents": -1, "days": 1}])
        return offers(400, 2)

    impatient = replace(PIPELINE, steps=(replace(quotes, timeout=0.1, backoff=0), choices))
    ended = await run(answer, impatient)
    assert ended.status == "completed"
    assert [quote.error for quote in ended.values["quotes"][:5]] == [
        "took longer than 0.1 s",
        "answered 503",
        "could not be reached",
        "gave an answer that makes no sense",
        None,
    ]
    assert ended.values["choices"].without == ["ant", "bee", "cat", "dog"]


async def test_the_carriers_get_their_requests_at_the_same_time():
    requested: list[str] = []
    complete = asyncio.Event()

    async def answer(carrier: str) -> httpx2.Response:
        requested.append(carrier)
        if len(requested) == len(CARRIERS):
            complete.set()
        await complete.wait()
        return offers(400, 2)

    assert (await run(answer)).values["choices"].without == []


async def test_without_any_answer_the_run_fails_with_its_reason():
    async def answer(carrier: str) -> httpx2.Response:
        return httpx2.Response(500)

    ended = await run(answer, carriers=["ant", "bee"])
    assert ended.status == "failed"
    assert ended.error == "quotes: all 2 items failed; the first: answered 500"
    assert ended.steps["quotes"].failure_reason == "dependency_away"


async def test_a_carrier_that_cannot_be_reached_is_tried_again():
    tries: list[str] = []

    async def answer(carrier: str) -> httpx2.Response:
        tries.append(carrier)
        if tries == ["ant"]:
            raise httpx2.ConnectError("refused")
        return offers(400, 2)

    ended = await run(answer, carriers=["ant"])
    assert (tries, ended.values["choices"].without) == (["ant", "ant"], [])


@pytest.mark.parametrize("url", ["carriers.test", "ftp://carriers.test", "https:///ant"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(pydantic.ValidationError):
        Gateway(url=url)


async def test_a_choice_can_be_tested_alone():
    with pytest.raises(StepFailed) as caught:
        await choices(carriers=["ant"], quotes=[Item[list[Offer]](value=[])])
    assert caught.value.failure_reason is FailureReason.DEPENDENCY_AWAY
