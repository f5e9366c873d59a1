"""Steps that are async generators: what is written of them before they end, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.testing import run_pipeline
from headstart_service.domain import PartialForm, Status, StepState
from headstart_service.domain.errors import LeaseLost, StepFailed, StoreUnavailable
from headstart_service.pipeline.step import Step, step
from headstart_service.values.limits import Limits
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Ledger, claim_for, claim_of, pipeline_of, tasks_left
from tests.support.waiting import wait_until

FAILED = StepState.FAILED


class Offer(BaseModel):
    name: str
    price: float


@step()
async def draft() -> AsyncIterator[str]:
    for word in ("Bröd ", "", "wants ", "flour"):
        yield word
        await asyncio.sleep(0.01)


@step()
async def offers() -> AsyncIterator[Offer]:
    yield Offer(name="a\nb", price=1)
    yield Offer(name="c", price=2.5)


@step()
async def answer() -> AsyncIterator[str | Offer]:
    yield "cheap: "
    yield "c"
    yield Offer(name="c", price=2.5)


@step()
async def total(draft: str, offers: list[Offer], answer: Offer) -> float:
    return len(draft) + sum(offer.price for offer in offers) + answer.price


def given(ledger: Ledger, name: str) -> str:
    """What was written of a step's only try, in one piece."""
    found = b""
    for write in ledger.given:
        if write.step == name:
            assert write.offset == len(found)
            found += write.data
    return found.decode()


async def test_text_items_and_last_values_are_results_and_are_written_as_they_come() -> None:
    pipeline, ledger = pipeline_of(draft, offers, answer, total), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("draft") == given(ledger, "draft") == "Bröd wants flour"
    assert len([write for write in ledger.given if write.step == "draft"]) == 3
    lines = given(ledger, "offers").splitlines()
    expected = [{"name": "a\nb", "price": 1.0}, {"name": "c", "price": 2.5}]
    assert [json.loads(line) for line in lines] == ledger.value("offers") == expected
    assert ledger.value("answer") == {"name": "c", "price": 2.5}
    assert given(ledger, "answer") == "cheap: c"
    assert {write.step: write.form for write in ledger.given} == {
        "draft": PartialForm.TEXT,
        "offers": PartialForm.LINES,
        "answer": PartialForm.TEXT,
    }
    assert ledger.value("total") == 16 + 3.5 + 2.5
    assert not tasks_left()


async def test_a_test_runs_streaming_steps_as_a_worker_does() -> None:
    result = await run_pipeline(pipeline_of(draft, offers, answer, total), {})
    assert result.values["draft"] == "Bröd wants flour"
    assert result.values["offers"][1] == Offer(name="c", price=2.5)
    assert result.values["total"] == 22.0
    assert result.results.partials == {
        "draft": "Bröd wants flour",
        "offers": [{"name": "a\nb", "price": 1.0}, {"name": "c", "price": 2.5}],
        "answer": "cheap: c",
    }


@step()
async def numbers() -> AsyncIterator[str]:
    yield "one"
    yield 2  # type: ignore[misc]  # the mistake


@step()
async def misfit() -> AsyncIterator[Offer]:
    yield "no offer"  # type: ignore[misc]  # the mistake


@step()
async def endless() -> AsyncIterator[str]:
    while True:
        yield "x" * 100


@step()
async def valueless() -> AsyncIterator[str | Offer]:
    yield "words"


@step()
async def talkative() -> AsyncIterator[str | Offer]:
    yield Offer(name="c", price=2.5)
    yield "more"


@step()
async def broken() -> AsyncIterator[str]:
    yield "a part"
    raise StepFailed("broke off")


@step()
async def surrogate() -> AsyncIterator[str]:
    yield "\ud800"


@step(timeout=0.05)
async def hanging() -> AsyncIterator[str]:
    while True:  # never waits for anything
        yield ""


@pytest.mark.parametrize(
    ("failing", "error", "left"),
    [
        (numbers, "yielded int, not str", "one"),
        (misfit, "yielded str, not Offer", ""),
        (endless, "yielded more than 1,000 bytes, HEADSTART_MAX_ARTIFACT_BYTES", None),
        (valueless, "ended without its last value, of type Offer", "words"),
        (talkative, "yielded str after its result", ""),
        (broken, "broke off", "a part"),
        (surrogate, "yielded text that is not Unicode: a lone surrogate", ""),
        (hanging, "took longer than 0.05 s", ""),
    ],
)
async def test_what_a_step_must_not_yield_fails_it_alone_and_leaves_what_was_there(
    failing: Step, error: str, left: str | None
) -> None:
    pipeline, ledger = pipeline_of(failing, draft), Ledger()
    limits = Limits(artifact=1000)
    async with asyncio.timeout(10):
        await run(claim_of(pipeline), pipeline, {}, ledger, limits=limits)
    assert ledger.report(failing.name).error == error
    assert left is None or given(ledger, failing.name) == left
    assert ledger.value("draft") == "Bröd wants flour"


@step()
async def patient() -> AsyncIterator[str | Offer]:
    try:
        async with asyncio.timeout(0.02):
            while True:
                yield "x"
    except TimeoutError:
        yield " enough"
    yield Offer(name="c", price=1)


async def test_a_timeout_of_the_generators_own_ends_where_it_stands() -> None:
    pipeline, ledger = pipeline_of(patient), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("patient") == {"name": "c", "price": 1.0}
    assert given(ledger, "patient").endswith("xx enough")
    result = await run_pipeline(pipeline, {})
    assert result.values["patient"].price == 1


async def test_another_try_and_another_worker_begin_anew() -> None:
    tries: list[int] = []

    @step(max_attempts=2, backoff=0)
    async def halting() -> AsyncIterator[str]:
        tries.append(1)
        yield f"try {len(tries)}"
        await asyncio.sleep(0.01)
        if len(tries) == 1:
            raise ConnectionError

    pipeline, ledger = pipeline_of(halting), Ledger()
    claim = claim_of(pipeline)
    again = replace(claim, lease=replace(claim.lease, attempt=2))
    await run(again, pipeline, {}, ledger)
    writes = [(write.trial, write.offset, write.data) for write in ledger.given]
    first, second = writes[0][0], writes[-1][0]
    assert second > first
    assert writes == [(first, 0, b"try 1"), (second, 0, b"try 2")]
    assert ledger.value("halting") == "try 2"


async def test_a_cancelled_run_closes_its_generator_at_once() -> None:
    closed = asyncio.Event()

    @step()
    async def provider() -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            closed.set()

    pipeline, ledger = pipeline_of(provider), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: bool(ledger.given))
    running.cancel()
    async with asyncio.timeout(5):  # at once: nothing else would ever close it
        await closed.wait()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not tasks_left()


async def test_what_comes_during_a_write_goes_with_the_next() -> None:
    all_there = asyncio.Event()

    class Slow(Ledger):
        async def append(self, lease: Any, write: Any) -> int:
            await all_there.wait()
            return await super().append(lease, write)

    @step()
    async def quick() -> AsyncIterator[str]:
        for _ in range(100):
            yield "word "
            await asyncio.sleep(0)
        all_there.set()

    pipeline, ledger = pipeline_of(quick), Slow()
    async with asyncio.timeout(10):
        await run(claim_of(pipeline), pipeline, {}, ledger)
    assert given(ledger, "quick") == "word " * 100
    assert len(ledger.given) <= 2


@pytest.mark.parametrize("error", [LeaseLost("run"), StoreUnavailable("away")])
async def test_a_step_ends_also_when_nothing_of_it_can_be_written_before(error: Exception) -> None:
    pipeline, ledger = pipeline_of(answer), Ledger()
    ledger.append_failure = error
    async with asyncio.timeout(10):
        assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert not tasks_left()


async def test_a_run_that_joins_a_step_under_way_gets_what_it_gave_before() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    @step(memo=True)
    async def shared() -> AsyncIterator[str]:
        yield "before "
        begun.set()
        await end.wait()
        yield "after"

    pipeline, reuse = pipeline_of(shared), Reuse()
    first, second = Ledger(), Ledger()
    one = asyncio.create_task(run(claim_for(pipeline, "a"), pipeline, {}, first, reuse=reuse))
    await begun.wait()
    other = asyncio.create_task(run(claim_for(pipeline, "b"), pipeline, {}, second, reuse=reuse))
    await wait_until(lambda: bool(second.given))
    assert given(second, "shared") == "before "
    end.set()
    await asyncio.gather(one, other)
    assert given(first, "shared") == given(second, "shared") == "before after"
    assert second.value("shared") == "before after"
