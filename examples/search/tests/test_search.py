"""Forty results, with a price service as a transport, and an embedder without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx2
from headstart_search import PIPELINE, Hit, categories, prices

from headstart.testing import PipelineRun, run_pipeline
from headstart_service.sdk import Pipeline
from tests.support.bag_of_words import BagOfWords

COLOURS = ("red", "blue", "green", "black")
ITEMS = [
    {"id": f"{colour}-{number}", "title": f"{colour} shoe number {number}", "category": colour}
    for colour in COLOURS
    for number in range(15)
]


async def costs_seven(item: str) -> httpx2.Response:
    return httpx2.Response(200, json={"cents": 700})


async def run(
    answer: Callable[[str], Awaitable[httpx2.Response]] = costs_seven,
    pipeline: Pipeline = PIPELINE,
    **inputs,
) -> PipelineRun:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        return await answer(request.url.path.removeprefix("/"))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as http:
        providers = {"http": http, "embedder": BagOfWords()}
        inputs = {"query": "blue shoe", "items": ITEMS} | inputs
        return await run_pipeline(pipeline, inputs, providers=providers)


async def test_the_page_has_forty_results_with_their_prices_the_best_first():
    ended = await run()
    hits: list[Hit] = ended.values["hits"]
    assert len(hits) == 40
    assert {hit.category for hit in hits[:15]} == {"blue"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [price.value for price in ended.values["prices"]] == [700] * 40


async def test_categories_are_counted_the_largest_first():
    counted = (await run()).values["categories"]
    assert sum(counted.values()) == 40
    assert next(iter(counted)) == "blue"
    hits = [Hit(id=str(n), title="t", category=c, score=1) for n, c in enumerate(["a", "b", "b"])]
    assert list(await categories(hits)) == ["b", "a"]


async def test_a_price_that_fails_has_its_reason_and_leaves_the_others():
    async def answer(item: str) -> httpx2.Response:
        match item:
            case "blue-1":
                return httpx2.Response(404)
            case "blue-2":
                return httpx2.Response(200, text="a price")
            case "blue-3":
                raise httpx2.ConnectError("refused")
            case "blue-4":
                await asyncio.Event().wait()
        return httpx2.Response(200, json={"cents": 5})

    steps = tuple(replace(each, timeout=0.1) if each is prices else each for each in PIPELINE.steps)
    ended = await run(answer, replace(PIPELINE, steps=steps), query="blue shoe number", count=15)
    ids = [hit.id for hit in ended.values["hits"]]
    found = dict(zip(ids, ended.values["prices"], strict=True))
    assert [found[f"blue-{number}"].error for number in range(6)] == [
        None,
        "answered 404",
        "no answer",
        "no answer",
        "took longer than 0.1 s",
        None,
    ]


async def test_a_few_prices_are_requested_at_once():
    under_way, most = 0, 0

    async def answer(item: str) -> httpx2.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return httpx2.Response(200, json={"cents": 5})

    await run(answer)
    assert 1 < most <= 8


async def test_the_results_do_not_wait_for_prices_which_settle():
    assert "prices" not in PIPELINE.needs(PIPELINE.by_name["hits"])
    assert not PIPELINE.by_name["prices"].required
    assert PIPELINE.by_name["prices"].settle > PIPELINE.by_name["hits"].settle == 0
