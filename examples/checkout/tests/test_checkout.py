"""Eight carriers as one transport: some answer, others are slow, broken or away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import headstart_checkout
import httpx2
import pydantic
import pytest
from headstart_checkout import CARRIERS, PIPELINE, Choice, Gateway, Quote, choices

from headstart.testing import PipelineRun, run_pipeline
from headstart_service.sdk import FailureReason, StepFailed

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


async def run(answer: Callable[[str], Awaitable[httpx2.Response]], **inputs) -> PipelineRun:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        assert json.loads(request.content)["postcode"] == "10115"
        assert request.url.host == "carriers.test"
        return await answer(request.url.path.removeprefix("/"))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as http:
        providers = {"http": http, "gateway": Gateway(url="https://carriers.test")}
        return await run_pipeline(PIPELINE, INPUTS | inputs, providers=providers)


async def test_the_cheapest_and_the_fastest_of_eight_are_found():
    async def answer(carrier: str) -> httpx2.Response:
        place = CARRIERS.index(carrier)
        return offers(500 - place * 10, 1 + place)

    found = (await run(answer)).values["choices"]
    assert found.cheapest == Choice(carrier="hen", service="parcel", cents=430, days=8)
    assert found.fastest.carrier == "ant"
    assert found.without == []


async def test_a_carrier_with_a_problem_is_named_and_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(headstart_checkout, "_PATIENCE", 0.05)

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

    ended = await run(answer)
    assert ended.status == "completed"
    quotes: list[Quote] = ended.values["quotes"]
    assert [quote.carrier for quote in quotes] == list(CARRIERS)
    assert [quote.problem for quote in quotes[:5]] == [
        "gave no answer within 0.05 s",
        "answered 503",
        "could not be reached",
        "gave an answer that makes no sense",
        "",
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


async def test_without_any_offer_the_run_fails_with_its_reason():
    async def answer(carrier: str) -> httpx2.Response:
        return httpx2.Response(500)

    ended = await run(answer, carriers=["ant", "bee"])
    assert (ended.status, ended.error) == ("failed", "choices: no carrier made an offer")
    assert ended.steps["choices"].failure_reason == "dependency_away"


async def test_carriers_of_which_none_can_be_reached_are_tried_again():
    tries: list[str] = []

    async def answer(carrier: str) -> httpx2.Response:
        tries.append(carrier)
        if len(tries) <= 2:
            raise httpx2.ConnectError("refused")
        return offers(400, 2)

    ended = await run(answer, carriers=["ant", "bee"])
    assert (ended.steps["quotes"].attempts, ended.values["choices"].without) == (2, [])


@pytest.mark.parametrize("url", ["carriers.test", "ftp://carriers.test", "https:///ant"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(pydantic.ValidationError):
        Gateway(url=url)


async def test_a_choice_can_be_tested_alone():
    with pytest.raises(StepFailed) as caught:
        await choices(quotes=[Quote(carrier="ant", problem="answered 503")])
    assert caught.value.failure_reason is FailureReason.DEPENDENCY_AWAY
