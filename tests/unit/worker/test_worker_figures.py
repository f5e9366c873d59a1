"""Figures of a worker: how much it asks for, what it shows, logs and reports. Time is virtual."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from headstart_service.domain import Claim, Job, Lease, Offer, RunKey, Spread, Withdrawal
from headstart_service.domain.errors import (
    ExecutorUnavailable,
    LastTry,
    LeaseLost,
    StoreUnavailable,
)
from headstart_service.domain.log_fields import FIELDS
from headstart_service.worker.durations import Durations, joined, usual_slot
from headstart_service.worker.shared_steps import HOLD, SharedSteps
from headstart_service.worker.upkeep import end
from headstart_service.worker.worker_observer import (
    RunEnd,
    RunOutcome,
    StepOutcome,
)
from tests.support.job_queue import (
    LEASE,
    MINUTE,
    PIPELINE,
    FakeQueue,
    Gates,
    job_of,
    working,
)
from tests.support.ledger import claim_for
from tests.support.outcomes import Outcomes
from tests.support.virtual_time import loop_time, run_virtually


def virtually(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtually(test())


# How much it asks for, and how often


@pytest.mark.parametrize(("partitions", "least", "most"), [(1, 50, 61), (3, 3000, 3700)])
def test_short_slots_are_offered_to_every_partition_in_turn(
    partitions: int, least: int, most: int
) -> None:
    async def test() -> None:
        queue = FakeQueue(partitions)
        async with working(queue, Gates(), concurrency=1):
            await asyncio.sleep(MINUTE)
            asked = [partition for name, partition, _ in queue.asked if name == "next_jobs"]
        assert least <= len(asked) <= most
        assert set(asked) == set(range(partitions))

    virtually(test)


@pytest.mark.parametrize("by", ["next_jobs", "lost_jobs", "unserved_jobs"])
def test_64_jobs_beyond_the_first_are_taken_at_once(by: str) -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        names = [f"run-{number}" for number in range(150)]
        async with working(queue, gates, concurrency=200) as worker:
            await asyncio.sleep(1.0)
            queue.jobs[by] += [job_of(name) for name in names]
            await asyncio.sleep(2 * LEASE)
            assert worker.held == 150
            limits = [limit for name, _, limit in queue.asked if name == by]
            for name in names:
                gates.open[name].set()
        assert max(limits) == (64 if by == "next_jobs" else 65)

    virtually(test)


def test_no_more_is_asked_for_than_there_are_slots() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3):
            queue.jobs["next_jobs"] += [job_of(f"run-{number}") for number in range(9)]
            await asyncio.sleep(3 * LEASE)
            assert len(gates.begun) == 3
            assert max(limit for _, _, limit in queue.asked) <= 3
            for number in range(9):
                gates.open[f"run-{number}"].set()
            await asyncio.sleep(1.0)
            assert len(gates.begun) == 9

    virtually(test)


def test_lost_jobs_of_every_partition_are_taken_over_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        queue, gates = FakeQueue(2), Gates()
        async with working(queue, gates):
            await asyncio.sleep(LEASE / 3 - 0.1)
            assert not [name for name, _, _ in queue.asked if name == "lost_jobs"]
            queue.jobs["lost_jobs"].append(job_of("lost"))
            await asyncio.sleep(0.2)
            assert [p for name, p, _ in queue.asked if name == "lost_jobs"] == [0, 1]
            assert gates.begun == ["lost"]
            gates.open["lost"].set()

    virtually(test)
    [record] = [r for r in caplog.records if "reclaimed" in r.getMessage()]
    assert record.getMessage() == "default/lost reclaimed: its worker was lost"
    assert record.__dict__[FIELDS] == {
        "event": "run.reclaimed",
        "namespace": "default",
        "key": "lost",
        "run": "lost",
        "worker": "w1",
    }


def test_a_change_of_places_is_shown_once_and_at_once() -> None:
    async def test() -> None:
        queue = FakeQueue()
        executors = SimpleNamespace(unavailable={}, changed=None)
        async with working(queue, Gates(), executors=executors):
            await asyncio.sleep(1.0)
            before = len(queue.offered)
            executors.unavailable = {"test": "its Ray is away"}
            executors.changed()
            await asyncio.sleep(0.1)
            assert queue.offered[before:] == [(0, [])]
            await asyncio.sleep(LEASE / 3 - 0.2)
            assert len(queue.offered) == before + 1
            await asyncio.sleep(0.2)
            assert len(queue.offered) == before + 2

    virtually(test)


# What it shows of itself


def test_what_a_worker_registers_lives_for_a_lease_and_is_complete() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        before = time.time_ns() // 1000
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("a"))
            await asyncio.sleep(LEASE)
            assert queue.shown is not None
            shown = queue.shown
            assert (shown.name, shown.host, shown.version) == ("w1", "box", "1.2")
            assert (shown.pipelines, shown.slots, shown.busy) == (("test",), 4, 0)
            assert before <= shown.started_us <= time.time_ns() // 1000
            assert set(queue.shown_for) == {LEASE}
            assert (worker.held, worker.underway) == (1, ["default/a"])
            gates.open["a"].set()
        assert queue.left == 1

    virtually(test)


def test_a_worker_offers_nothing_of_a_partition_that_gives_it_no_jobs() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(2), Gates()
        queue.refusing = {0}
        async with working(queue, gates, concurrency=3) as worker:
            await asyncio.sleep(1.0)
            assert worker.problem == "partition 0 refused"
            queue.offered.clear()
            await asyncio.sleep(LEASE)
            assert {partition for partition, _ in queue.offered} == {1}
            # One that has enough to do asks for no jobs: so that is no problem.
            queue.jobs["next_jobs"] += [job_of(name) for name in ("a", "b", "c")]
            await asyncio.sleep(LEASE)
            assert (worker.held, worker.problem) == (3, "")
            queue.offered.clear()
            await asyncio.sleep(LEASE)
            assert {partition for partition, _ in queue.offered} == {0, 1}
            for name in ("a", "b", "c"):
                gates.open[name].set()
            await asyncio.sleep(2.0)
            assert worker.problem == "partition 0 refused"
            queue.refusing = set()
            await asyncio.sleep(2.0)
            assert worker.problem == ""

    virtually(test)


def test_a_worker_that_waits_for_a_last_try_has_no_problem() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("other"))
            await asyncio.sleep(2.0)
            # Twice, as when it is reclaimed again while it waits for the others.
            queue.jobs["lost_jobs"] += [job_of("last")] * 2
            queue.refusing = {0}
            await asyncio.sleep(LEASE)
            assert worker.problem == ""
            gates.open["other"].set()
            await asyncio.sleep(LEASE)
            assert worker.problem == ""
            gates.open["last"].set()
            await asyncio.sleep(LEASE)
            assert set(queue.alone[1:-1]) == {("last", False)}
            assert queue.alone[-1] == ("last", True)
            assert queue.finished == ["other", "last"]
            assert worker.problem == "partition 0 refused", "it asks for jobs again"
            queue.refusing = set()

    virtually(test)


def test_a_refusal_is_logged_when_it_changes_and_again_after_a_success(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        queue = FakeQueue()
        async with working(queue, Gates()):
            for refused in (True, True, False, True):
                queue.refusing = {0} if refused else set()
                await asyncio.sleep(3.0)
            queue.refusing = set()

    virtually(test)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("no jobs")]
    assert told == ["no jobs: partition 0 refused"] * 2


# Runs that are stopped, handed on or left


@pytest.mark.parametrize(
    ("how", "state", "error"),
    [
        ("lost", "stopped", "its lease was lost"),
        ("cancelled", "stopped", "it was cancelled or replaced"),
        ("both", "stopped", "it was cancelled or replaced"),
        ("drained", "handed_on", ""),
        ("completed", "completed", ""),
    ],
)
def test_the_end_of_a_run_is_reported_with_its_reason(how: str, state: str, error: str) -> None:
    outcomes = Outcomes()

    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, observer=outcomes):
            queue.jobs["next_jobs"].append(job_of("a"))
            await asyncio.sleep(2.0)
            if how in ("cancelled", "both"):
                queue.heard.append(Withdrawal(job_of("a").key, "1-1", replaced=False))
                await asyncio.sleep(0.2)
            if how in ("lost", "both"):
                queue.lost.add(job_of("a").key)
                await asyncio.sleep(LEASE)
            if how == "completed":
                gates.open["a"].set()
                await asyncio.sleep(1.0)
        assert queue.released == (["a"] if how == "drained" else [])

    virtually(test)
    assert (outcomes.runs["a"].state, outcomes.runs["a"].error) == (state, error)


def test_a_drain_lets_runs_go_on_for_its_time_and_logs_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")

    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        queue.failing = {"deregister"}
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"] += [job_of("short"), job_of("long")]
            await asyncio.sleep(2.0)
            loop = asyncio.get_running_loop()
            loop.call_later(4.9, gates.open["short"].set)
            worker.stop()
            began = loop_time()
        assert loop_time() - began == pytest.approx(5.0)
        assert (queue.finished, queue.released) == (["short"], ["long"])
        assert "short" not in gates.stopped

    virtually(test)
    assert "draining 2 runs for at most 5 s" in caplog.text
    assert "cannot deregister from the queue: deregister failed" in caplog.text


class Refusing(FakeQueue):
    """Refuses the claim of one job; says of another that it may not run beside others."""

    async def claim(
        self, job: Job, worker: str, offers: Sequence[Offer], *, alone: bool = True
    ) -> Claim:
        if job.run.startswith(("away", "alone")):
            if job.run.startswith("alone") and not alone:
                raise LastTry(str(job.key))
            raise StoreUnavailable("claim failed")
        return await super().claim(job, worker, offers, alone=alone)


@pytest.mark.parametrize("run", ["away", "alone"])
def test_a_job_that_cannot_be_claimed_is_left_and_costs_no_slot(
    run: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        queue, gates = Refusing(), Gates()
        async with working(queue, gates, concurrency=2):
            queue.jobs["next_jobs"] += [job_of(f"{run}-{number}") for number in range(5)]
            await asyncio.sleep(LEASE)
            queue.jobs["next_jobs"] += [job_of("a"), job_of("b")]
            await asyncio.sleep(LEASE)
            assert sorted(gates.begun) == ["a", "b"]
            for name in ("a", "b"):
                gates.open[name].set()

    virtually(test)
    told = [r for r in caplog.records if "left alone" in r.getMessage()]
    assert len(told) == 5
    assert told[0].getMessage() == f"default/{run}-0 left alone: claim failed"
    assert told[0].__dict__[FIELDS] == {
        "event": "run.left",
        "namespace": "default",
        "key": f"{run}-0",
        "run": f"{run}-0",
    }


@pytest.mark.parametrize(
    ("error", "released", "state"),
    [
        (ExecutorUnavailable("its Ray is away"), ["a"], "handed_on"),
        (StoreUnavailable("no room"), [], "stopped"),
        (LeaseLost("a"), [], "stopped"),
        (RuntimeError("a bug"), [], "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_ends_a_run_decides_who_has_it_next(
    error: Exception, released: list[str], state: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = Outcomes()

    async def test() -> None:
        queue, gates = FakeQueue(), Gates()

        class Broken:
            async def commit(self, *_: Any) -> None:
                raise error

            async def finish(
                self,
                lease: Lease,
                ended: Any,
                status: Any,
                error_text: str,
                failure_reason: Any,
                slot: Any = None,
            ) -> None:
                if not isinstance(error, RuntimeError) or ended:
                    raise error
                queue.finished.append(f"{status} {error_text}")

        async with working(queue, gates, observer=outcomes, sink=Broken()) as worker:
            gates.open["a"].set()
            queue.jobs["next_jobs"].append(job_of("a"))
            await asyncio.sleep(2.0)
            assert worker.held == 0
            assert queue.released == released
            if isinstance(error, RuntimeError):
                [told] = queue.finished
                assert told.startswith("failed internal error ")
                assert told.removeprefix("failed ") == outcomes.runs["a"].error
                assert told.removeprefix("failed ") in caplog.text
            elif not isinstance(error, LeaseLost):
                assert outcomes.runs["a"].error == str(error)
            else:
                assert outcomes.runs["a"].error == "its lease was lost"

    virtually(test)
    assert outcomes.runs["a"].state == state
    assert ("default/a handed on: its Ray is away" in caplog.text) is bool(released)


def test_a_run_that_comes_while_others_are_handed_on_is_given_back() -> None:
    class Slow(FakeQueue):
        async def claim(self, job: Job, *args: Any, **named: Any) -> Claim:
            await asyncio.sleep(6.0)
            return await super().claim(job, *args, **named)

    async def test() -> None:
        queue, gates = Slow(), Gates()
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("late"))
            await asyncio.sleep(0.5)
            worker.stop()
        assert (queue.released, gates.begun) == (["late"], [])

    virtually(test)


def test_a_task_that_swallows_its_cancellation_is_cancelled_again_after_a_second() -> None:
    async def test() -> None:
        swallowed: list[float] = []

        async def stubborn() -> None:
            while len(swallowed) < 4:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    swallowed.append(loop_time())

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await end([task])
        assert swallowed == [0.0, 1.0, 2.0, 3.0]

    virtually(test)


# What is held of replaced runs, and what is known of runs


def test_each_replaced_runs_steps_are_held_for_its_own_second() -> None:
    async def test() -> None:
        shared_steps, ended = SharedSteps(), {}
        keys = [RunKey("default", name) for name in ("a", "b")]

        def work(name: str) -> Callable[[StepOutcome], Coroutine[Any, Any, None]]:
            async def wait(_: StepOutcome) -> None:
                try:
                    await asyncio.sleep(3600)
                finally:
                    ended[name] = round(loop_time(), 3)

            return wait

        async def shared(key: RunKey) -> None:
            with shared_steps.expecting(key, ["digest"]):
                await shared_steps.share((key,), key, "digest", StepOutcome(), work(key.key))

        runs = [asyncio.create_task(shared(key)) for key in keys]
        await asyncio.sleep(0.1)
        for key, task in zip(keys, runs, strict=True):
            shared_steps.hold(key)
            task.cancel()
            await asyncio.wait({task})
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.1)
        assert shared_steps.waiting == {(key,): 0 for key in keys}
        shared_steps.hold(keys[0])  # replaced once more: its second begins anew
        await asyncio.sleep(2.0)
        assert shared_steps.waiting == {}
        assert ended == {"a": 0.7 + HOLD, "b": 0.35 + HOLD}
        await shared_steps.aclose()

    virtually(test)


def test_pipelines_of_which_no_run_has_ended_count_for_nothing() -> None:
    table = {"a": {"*": Spread(4, 8, 1), "": Spread(9, 9, 1)}, "b": {"x": Spread(9, 9, 9)}}
    assert usual_slot(table) == Spread(4, 8, 1)
    more = [table, {"other": {"*": Spread(0, 100, 3)}}]
    assert usual_slot(joined(more)) == Spread(1, 77, 4)
    assert usual_slot({}) == Spread(0, 0, 0)


def test_a_run_that_was_taken_over_changes_no_durations() -> None:
    durations = Durations()
    claim = claim_for(PIPELINE, "a", name="a")
    for ended, state in (({}, "completed"), ({"held": None}, "completed"), ({}, "failed")):
        outcome = RunOutcome()
        with durations.run(replace(claim, ended=ended), outcome):
            outcome.state = RunEnd(state)
    assert durations.table()["test"][""].samples == 1
