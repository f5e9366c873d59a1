"""A call that waits for its batch: what ends its wait."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import BatchedRequest, BatchOwner
from headstart_service.providers.batched_call import BatchedCall
from headstart_service.worker.step_caller import StepCaller
from headstart_service.worker.step_try import StepTry


def waiting() -> BatchedCall:
    return BatchedCall(StepCaller(), BatchOwner(), BatchedRequest("d", "r"), 0.0, StepTry())


@pytest.mark.parametrize("turns", range(8))
async def test_what_has_come_for_a_call_that_is_cancelled_is_not_lost(turns: int) -> None:
    given = asyncio.Event()
    kept: list[str] = []

    async def work() -> str:
        await given.wait()
        kept.append("permit")
        return "permit"

    async def step() -> None:
        permit = await waiting().unless_news(work(), kept.remove)
        assert permit is not None
        kept.remove(permit)

    task = asyncio.create_task(step())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    given.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert not kept


async def test_news_ends_the_work_and_its_failure_is_the_call_s() -> None:
    call, ended = waiting(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    task = asyncio.create_task(call.unless_news(work(), ended.append))
    await asyncio.sleep(0)
    call.news.set()
    assert await task is None
    assert ended == ["work"]

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await waiting().unless_news(fails(), ended.append)
