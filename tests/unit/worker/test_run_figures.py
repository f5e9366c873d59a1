"""Figures of runs: times, tries and costs of steps, each met exactly. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Status, StepState
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import step
from headstart_service.values.limits import Limits
from headstart_service.worker.cost_meter import spend
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import CLAIMED_US, Dictionary, Ledger, claim_for, claim_of, pipeline_of
from tests.support.outcomes import Outcomes
from tests.support.virtual_time import Clock, run_virtually
from tests.support.waiting import wait_until

COMPLETED, FAILED = StepState.COMPLETED, StepState.FAILED
SECOND = 1_000_000


async def test_a_step_has_its_times_tries_and_costs(clock: Clock) -> None:
    tries = 0

    @step()
    async def first() -> int:
        clock.now += 2.5
        spend(cpu_seconds=1000.0, llm_tokens=7)
        return 1

    @step(max_attempts=3, backoff=0.0)
    async def second(first: int) -> int:
        nonlocal tries
        tries += 1
        clock.now += 0.25
        spend(llm_tokens=2)
        if tries < 3:
            raise StepFailed(f"try {tries}")
        return first

    @step(max_attempts=2, backoff=0.0)
    async def third(second: int) -> int:
        clock.now += 4.0
        raise StepFailed("never")

    pipeline, ledger, outcomes = pipeline_of(first, second, third), Ledger(), Outcomes()
    assert await run(claim_of(pipeline), pipeline, {}, ledger, outcomes) is Status.COMPLETED
    told = {name: ledger.report(name) for name in ("first", "second", "third")}
    started = {name: report.started_us - CLAIMED_US for name, report in told.items()}
    assert started == {"first": 0, "second": 2_500_000, "third": 3_250_000}
    took = {name: report.elapsed.ToMicroseconds() for name, report in told.items()}
    assert took == {"first": 2_500_000, "second": 750_000, "third": 8 * SECOND}
    assert {name: report.attempts for name, report in told.items()} == {
        "first": 1,
        "second": 3,
        "third": 2,
    }
    errors = {name: report.error for name, report in told.items()}
    assert errors == {"first": "", "second": "", "third": "never"}
    work = {name: ledger.records[name].work for name in told}
    assert all(work.values())
    assert {n: w.elapsed for n, w in work.items() if w} == {
        "first": 2.5,
        "second": 0.75,
        "third": 8.0,
    }
    assert {n: w.llm_tokens for n, w in work.items() if w} == {"first": 7, "second": 6, "third": 0}
    assert work["first"] is not None
    assert work["first"].cpu_seconds >= 1000.0
    second_tried = outcomes.steps["second"].tried
    assert [(each.error, each.ended_ns) for each in second_tried] == [
        ("try 1", 1_002_750_000_000),
        ("try 2", 1_003_000_000_000),
    ]
    assert len(outcomes.steps["third"].tried) == 2
    assert (outcomes.steps["third"].state, outcomes.steps["third"].error) == ("failed", "never")


async def test_a_result_that_a_run_has_no_room_for_keeps_its_times(clock: Clock) -> None:
    @step()
    async def small() -> str:
        clock.now += 1.0
        return "x" * 100

    @step(max_attempts=2, backoff=0.0)
    async def large(small: str) -> str:
        clock.now += 2.0
        if clock.now < 1004.0:
            raise StepFailed("once")
        return "y" * 1000

    pipeline, ledger, outcomes = pipeline_of(small, large), Ledger(), Outcomes()
    limits = Limits(run=1000)
    await run(claim_of(pipeline), pipeline, {}, ledger, outcomes, limits)
    report = ledger.report("large")
    assert report.state == pb.STEP_STATE_FAILED
    assert report.error.endswith("HEADSTART_MAX_RUN_BYTES is 1,000")
    assert (report.started_us - CLAIMED_US, report.elapsed.ToMicroseconds()) == (
        SECOND,
        4 * SECOND,
    )
    assert report.attempts == 2
    assert outcomes.steps["large"].state == "failed"
    assert outcomes.steps["large"].error == report.error
    work = ledger.records["large"].work
    assert work is not None
    assert work.elapsed == 4.0


async def test_a_remembered_step_has_its_own_times_and_costs_nothing(clock: Clock) -> None:
    @step(memo=True)
    async def word() -> str:
        clock.now += 3.0
        return "sea"

    @step()
    async def before() -> int:
        clock.now += 0.5
        return 1

    pipeline = pipeline_of(before, word)
    memos = Dictionary()

    class Slow(Dictionary):
        async def memo_get(self, namespace: str, digest: str) -> bytes | None:
            clock.now += 1.5
            return await memos.memo_get(namespace, digest)

    await run(claim_for(pipeline, "one"), pipeline, {}, Ledger(), reuse=Reuse(memos))
    ledger, outcomes = Ledger(), Outcomes()
    claim = claim_for(pipeline, "two")
    await run(claim, pipeline, {}, ledger, outcomes, reuse=Reuse(Slow()))
    report = ledger.report("word")
    assert report.origin == pb.STEP_ORIGIN_MEMOISED
    assert (report.attempts, ledger.value("word")) == (0, "sea")
    assert report.elapsed.ToMicroseconds() == 1_500_000 + 500_000
    assert report.started_us == CLAIMED_US
    assert ledger.records["word"].work is None
    assert outcomes.steps["word"].memoised


async def test_neither_a_failure_nor_a_step_without_a_memo_is_remembered() -> None:
    @step(memo=True)
    async def fails() -> int:
        raise StepFailed("no")

    @step()
    async def plain() -> int:
        return 1

    memos = Dictionary()
    pipeline = pipeline_of(fails, plain)
    await run(claim_of(pipeline), pipeline, {}, Ledger(), reuse=Reuse(memos))
    assert memos.kept == {}


@pytest.mark.parametrize(("seconds", "shown"), [(0.0499, False), (0.0501, True)])
def test_steps_of_fifty_milliseconds_are_shown_as_running(
    seconds: float,
    shown: bool,  # noqa: FBT001
) -> None:
    @step()
    async def naps() -> int:
        await asyncio.sleep(seconds)
        return 1

    async def ran() -> Ledger:
        pipeline, ledger = pipeline_of(naps), Ledger()
        await run(claim_of(pipeline), pipeline, {}, ledger)
        return ledger

    writes = run_virtually(ran()).writes
    assert [[record.name for record in write.running] for write in writes] == (
        [["naps"], []] if shown else [[]]
    )


async def test_steps_that_end_in_one_turn_of_the_loop_share_a_write() -> None:
    scanned = asyncio.Event()

    @step()
    async def ends() -> int:
        return 1

    @step()
    async def best(ends: int) -> int:
        await scanned.wait()
        return ends

    @step()
    async def samples(ends: int) -> int:
        await scanned.wait()
        return ends

    pipeline, ledger = pipeline_of(ends, best, samples), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: ledger.writes)
    scanned.set()
    await running
    assert [write.names for write in ledger.writes] == [["ends"], ["best", "samples"]]
