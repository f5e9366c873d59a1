"""Steps that settle, on a real queue: what begins, when, and what stopped work is counted for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from headstart_service.domain import ALL_STEPS, Awaits, RunKey, Status, StepState
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.worker.cost_meter import spend
from tests.integration.worker.conftest import Control, Games
from tests.support.ledger import pipeline_of
from tests.support.waiting import wait_until

KEY = RunKey("default", "typed")
TYPED = ["castle ruins of the north"[:length] for length in range(1, 20)]
Start = Callable[..., Awaitable[object]]


class Typed(BaseModel):
    name: str
    text: str = ""


@step()
async def title(name: str) -> str:
    return name.title()


@step(settle=60)
async def draft(name: str, text: str, title: str, control: Control) -> str:
    control.first[text] += 1
    spend(llm_tokens=7)
    await control.hold(name)
    return f"{title}: {text}"


@step()
async def summary(draft: str) -> str:
    return draft[:5]


PATIENT = pipeline_of(title, draft, summary, name="patient", inputs=Typed)


def quick(settle: float) -> Pipeline:
    """The same, with another time to settle."""

    @step(settle=settle, version=str(settle))
    async def draft(name: str, text: str, title: str, control: Control) -> str:
        control.first[text] += 1
        return f"{title}: {text}"

    return pipeline_of(title, draft, summary, name="quick", inputs=Typed)


async def test_typing_costs_one_call_which_the_submit_begins(games: Games) -> None:
    games.control.gates[KEY.key].set()
    async with games.working(pipelines=(PATIENT,)):
        for text in TYPED:
            await games.start(KEY.key, text, PATIENT)
            await games.until_kept(KEY.key, "title")
        assert not games.control.first
        await games.store.read(KEY, awaits=Awaits.END, required={ALL_STEPS})
        await games.until(KEY.key, Status.COMPLETED)
    assert games.control.first == {TYPED[-1]: 1}


async def test_without_settling_each_edit_begins_a_call_whose_tokens_are_in_the_ledger(
    games: Games,
) -> None:
    pipeline = pipeline_of(title, replaced(), summary, name="eager", inputs=Typed)
    async with games.working(pipelines=(pipeline,)):
        await games.until_heard()
        for text in TYPED[:4]:
            await games.start(KEY.key, text, pipeline)
            await wait_until(lambda text=text: games.control.first[text])
        games.control.gates[KEY.key].set()
        await games.until(KEY.key, Status.COMPLETED)

        async def counted() -> bool:
            ledger = (await games.store.stats("")).ledger
            work = ledger and ledger.fates
            stopped = next((w for fate, w in work.items() if fate == "replaced"), None)
            return stopped is not None and (stopped.llm_tokens, stopped.runs) == (3 * 7, 3)

        await wait_until(counted)


def replaced() -> object:
    """The patient step, which begins at once."""
    from dataclasses import replace

    return replace(draft, settle=0.0)


@pytest.mark.parametrize("steps", [{"draft"}, {"summary"}, {ALL_STEPS}])
@pytest.mark.parametrize("early", [True, False])
async def test_a_step_begins_at_once_when_a_caller_waits_for_it(
    games: Games, steps: set[str], *, early: bool
) -> None:
    await games.start(KEY.key, "x", PATIENT)
    if early:
        await games.store.read(KEY, awaits=Awaits.STEPS, required=steps)
    games.control.gates[KEY.key].set()
    async with games.working(pipelines=(PATIENT,)):
        await games.until_kept(KEY.key, "title")
        if not early:
            assert not games.control.first
            await games.store.read(KEY, awaits=Awaits.STEPS, required=steps)
        await games.until(KEY.key, Status.COMPLETED)


async def test_neither_a_watcher_nor_a_caller_that_waits_for_another_step_begins_it(
    games: Games,
) -> None:
    async with games.working(concurrency=1, runs=5, pipelines=(PATIENT,)) as serving:
        await games.start(KEY.key, "x", PATIENT)
        await games.store.read(KEY, awaits=Awaits.CHANGES)
        await games.store.read(KEY, awaits=Awaits.STEPS, required={"title"})
        await games.until_kept(KEY.key, "title")
        # It has no slot meanwhile: another run has the only one.
        games.control.gates["other"].set()
        await games.start("other", "y", PATIENT)
        await games.store.read(RunKey("default", "other"), awaits=Awaits.END, required={ALL_STEPS})
        await games.until("other", Status.COMPLETED)
        snapshot = await games.snapshot(KEY.key)
        assert snapshot.states["draft"] is StepState.PENDING
        assert games.control.first == {"y": 1}
        await games.store.cancel(KEY)
        assert not serving.done()


async def test_what_is_under_way_is_taken_over_by_the_next_revision(games: Games) -> None:
    """A submit has begun it; an edit of what it does not depend on leaves it alone."""

    class Two(Typed):
        other: str = ""

    @step()
    async def aside(other: str) -> str:
        return other

    pipeline = pipeline_of(title, draft, aside, name="two", inputs=Two)
    async with games.working(pipelines=(pipeline,)):
        await games.until_heard()

        async def start(other: str) -> None:
            plan = pipeline.plan({"name": KEY.key, "text": "x", "other": other}, "inputs")
            await games.store.start(KEY, plan, 600.0, restart=False)

        await start("a")
        await games.store.read(KEY, awaits=Awaits.END, required={ALL_STEPS})
        await wait_until(lambda: games.control.running)
        await start("b")
        await games.until_kept(KEY.key, "aside")
        games.control.gates[KEY.key].set()
        await games.until(KEY.key, Status.COMPLETED)
    assert games.control.first == {"x": 1}


async def test_a_worker_that_takes_over_waits_only_for_the_rest(games: Games) -> None:
    pipeline = quick(1.5)
    await games.start(KEY.key, "x", pipeline)
    began = asyncio.get_running_loop().time()
    async with games.working("w1", drain=0.0, pipelines=(pipeline,)):
        await games.until_kept(KEY.key, "title")
    async with games.working("w2", pipelines=(pipeline,)):
        await wait_until(lambda: games.control.first["x"])
    assert asyncio.get_running_loop().time() - began >= 1.4
    assert games.control.first == {"x": 1}
