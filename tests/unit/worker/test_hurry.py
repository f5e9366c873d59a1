"""Which steps are hurried once callers wait for them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from headstart_service.domain import ALL_STEPS, StepState
from headstart_service.pipeline.step import step
from headstart_service.worker.held_runs import HeldRun
from headstart_service.worker.hurry import Hurry
from headstart_service.worker.occupancy import Occupancy, is_alone, is_handed_on, within
from headstart_service.worker.reported_steps import ReportedSteps
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from headstart_service.worker.settling import Settling
from headstart_service.worker.step_caller import CALLER
from headstart_service.worker.worker_observer import RunOutcome
from tests.support.ledger import Dictionary, Ledger, claim_for, pipeline_of
from tests.support.waiting import wait_until

LATER_US = 10**17


class Inputs(BaseModel):
    words: list[str] = ["a"]
    edit: str = ""


class Hurries:
    """Three steps that wait until a caller waits for them; the last needs the first."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.reuse = Reuse(Dictionary())

        async def hurried(name: str) -> str:
            self.begun.append(name)
            said = asyncio.Event()
            with CALLER.get().hurry.followed(said.set):
                await said.wait()
            return name

        @step(memo=True)
        async def first() -> str:
            return await hurried("first")

        @step()
        async def beside() -> str:
            return await hurried("beside")

        @step(each="words")
        async def items(words: str) -> str:
            return await hurried(words)

        @step()
        async def last(first: str, edit: str) -> str:
            return await hurried("last")

        self.pipeline = pipeline_of(first, beside, items, last, inputs=Inputs)

    def run(
        self, key: str = "k", needed_us: int = LATER_US, **inputs: Any
    ) -> tuple[asyncio.Task[Any], Settling, Ledger]:
        ledger, settling = Ledger(), Settling()
        claim = replace(claim_for(self.pipeline, key, **inputs), needed_us=needed_us)
        work = run(claim, self.pipeline, {}, ledger, reuse=self.reuse, settling=settling)
        return asyncio.create_task(work), settling, ledger


def completed(ledger: Ledger) -> set[str]:
    return {name for name, state in ledger.states.items() if state is StepState.COMPLETED}


async def test_a_caller_hurries_the_steps_that_it_waits_for_and_what_they_need() -> None:
    hurries = Hurries()
    task, settling, ledger = hurries.run()
    await wait_until(lambda: len(hurries.begun) == 3)
    settling.awaited.ask(["last"])
    await wait_until(lambda: "last" in completed(ledger))
    assert completed(ledger) == {"first", "last"}
    settling.awaited.ask([ALL_STEPS])
    await task
    assert completed(ledger) == {"first", "beside", "items", "last"}


async def test_a_caller_of_any_run_hurries_the_step_that_these_share() -> None:
    hurries = Hurries()
    one, first, _ = hurries.run("one")
    two, second, ledger = hurries.run("two", edit="x")
    await wait_until(lambda: len(hurries.begun) == 5)
    assert hurries.begun.count("first") == 1
    second.awaited.ask(["last"])
    await wait_until(lambda: "last" in completed(ledger))
    for each in (first, second):
        each.awaited.ask([ALL_STEPS])
    await asyncio.gather(one, two)


async def test_the_next_revision_hurries_a_step_whose_memo_is_being_looked_up() -> None:
    class Slow(Dictionary):
        async def memo_get(self, namespace: str, digest: str) -> bytes | None:
            self.looks += 1
            await opened.wait()
            return None

    opened, hurries = asyncio.Event(), Hurries()
    memos = Slow()
    hurries.reuse = Reuse(memos)
    one, _, _ = hurries.run(edit="a")
    await wait_until(lambda: memos.looks)
    hurries.reuse.shared_steps.hold(claim_for(hurries.pipeline, "k").lease.job.key)
    one.cancel()
    await asyncio.wait({one})
    two, settling, ledger = hurries.run(edit="b")
    await wait_until(lambda: "beside" in hurries.begun)
    opened.set()
    settling.awaited.ask([ALL_STEPS])
    await two
    assert memos.looks == 1, "the same work"
    assert "last" in completed(ledger)


@pytest.mark.parametrize("needed_us", [0, LATER_US // 2])
async def test_a_run_that_needs_a_shared_step_sooner_hurries_it(needed_us: int) -> None:
    hurries = Hurries()
    tasks = [hurries.run("one")]
    await wait_until(lambda: len(hurries.begun) == 3)
    tasks += [hurries.run("two", LATER_US), hurries.run("three", LATER_US + 1)]
    await wait_until(lambda: len(hurries.begun) == 7)
    assert "last" not in hurries.begun
    tasks.append(hurries.run("four", needed_us))
    await wait_until(lambda: all("first" in completed(ledger) for _, _, ledger in tasks))
    for task, settling, _ in tasks:
        settling.awaited.ask([ALL_STEPS])
        await task


async def test_a_step_that_settles_leaves_the_loop_to_others() -> None:
    @step(settle=0.3)
    async def typed() -> str:
        return "typed"

    pipeline = pipeline_of(typed)
    claim = replace(claim_for(pipeline, "k"), needed_us=0, at_us=time.time_ns() // 1000)
    task = asyncio.create_task(run(claim, pipeline, {}, Ledger(), settling=Settling()))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    await task
    assert turns > 3


def test_what_is_said_before_somebody_listens_is_heard() -> None:
    hurry, heard = Hurry(), []
    hurry.set()
    with hurry.followed(lambda: heard.append(1)):
        assert heard == [1]
        hurry.set()
    assert heard == [1]


async def test_a_run_that_is_handed_on_knows_that_another_worker_goes_on_with_it() -> None:
    occupancy = Occupancy(lambda: None, lambda: None, lambda _: None)
    seen = []

    async def work() -> None:
        assert not is_alone()
        assert not is_handed_on()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(is_handed_on())

    for stop in (HeldRun.hand_on, HeldRun.cancel):
        occupancy = Occupancy(lambda: None, lambda: None, lambda _: None)
        task: asyncio.Task[Any] = asyncio.create_task(work(), context=within(occupancy))
        await asyncio.sleep(0)
        stop(HeldRun(RunOutcome(), ReportedSteps(), Settling(), task, occupancy))
        await asyncio.wait({task})
    assert seen == [True, False]
    assert is_alone()
    assert not is_handed_on()
