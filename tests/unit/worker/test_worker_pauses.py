"""How often a worker asks a store that refuses, what it takes beside a last try, what stops runs.

Time is virtual: a minute of pauses passes at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from headstart_service.domain import (
    Reported,
    StepRecord,
    StepState,
    Withdrawal,
    WorkerState,
)
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import report_fragment
from headstart_service.worker.durations import Durations
from headstart_service.worker.shared_steps import HOLD
from tests.support.job_queue import (
    LEASE,
    MINUTE,
    FakeQueue,
    Gates,
    job_of,
    working,
)
from tests.support.virtual_time import run_virtually


def test_a_store_that_refuses_is_asked_a_bounded_number_of_times_a_second() -> None:
    async def refused() -> tuple[Counter[str], Counter[str]]:
        queue = FakeQueue()
        async with working(queue, Gates()):
            await asyncio.sleep(2.0)
            queue.away = True
            queue.calls.clear()
            await asyncio.sleep(MINUTE)
            away = queue.calls.copy()
            queue.away = False
            queue.calls.clear()
            await asyncio.sleep(MINUTE)
            return away, queue.calls.copy()

    away, back = run_virtually(refused())
    assert MINUTE * 2 <= away["next_jobs"] <= MINUTE * 4 + 1
    assert MINUTE / 2 <= away["withdrawals"] <= MINUTE + 2
    # Upkeep goes on, thrice a lease or every five seconds, and no more often.
    for name in ("renew", "sweep", "heartbeat", "lost_jobs"):
        assert MINUTE / 10 <= away[name] <= MINUTE / 5 + 1, name
        assert MINUTE / 10 <= back[name] <= MINUTE / 5 + 1, name
    assert sum(away.values()) <= MINUTE * 7
    assert back["next_jobs"] <= MINUTE + 1, "an empty queue is asked once a second"


def test_a_store_that_refuses_from_the_beginning_is_asked_once_a_second() -> None:
    async def refused() -> Counter[str]:
        queue = FakeQueue()
        queue.away = True
        async with working(queue, Gates()):
            await asyncio.sleep(MINUTE)
            return queue.calls.copy()

    calls = run_virtually(refused())
    assert MINUTE / 2 <= calls.total() <= MINUTE + 1


@pytest.mark.parametrize("by", ["next_jobs", "lost_jobs", "unserved_jobs"])
def test_a_last_try_has_nothing_beside_it_even_if_its_neighbour_comes_later(by: str) -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3):
            queue.jobs["next_jobs"].append(job_of("last"))
            await asyncio.sleep(2 * LEASE)
            assert gates.begun == ["last"]
            queue.jobs[by].append(job_of("other"))
            await asyncio.sleep(4 * LEASE)
            assert gates.begun == ["last"]
            assert queue.alone == [("last", False), ("last", True)]
            gates.open["last"].set()
            await asyncio.sleep(4 * LEASE)
            assert gates.begun == ["last", "other"]
            gates.open["other"].set()

    run_virtually(serve())


def test_a_last_try_waits_for_its_neighbours_and_takes_no_new_ones_meanwhile() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3):
            queue.jobs["next_jobs"] += [job_of("other"), job_of("last")]
            await asyncio.sleep(2 * LEASE)
            assert gates.begun == ["other"]
            assert ("last", True) not in queue.alone
            queue.calls.clear()
            await asyncio.sleep(MINUTE / 3)
            assert queue.calls["next_jobs"] <= 1, "it waits for every slot"
            gates.open["other"].set()
            await asyncio.sleep(LEASE)
            assert gates.begun == ["other", "last"]
            gates.open["last"].set()

    run_virtually(serve())


RUN = "1-1"
"""The id of every run here."""


@pytest.mark.parametrize("replaced", [True, False])
def test_a_replaced_runs_steps_are_held_for_the_next_revision_and_a_cancelled_ones_stop(
    *, replaced: bool
) -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("other"))
            await asyncio.sleep(2.0)
            queue.heard.append(Withdrawal(job_of("other").key, RUN, replaced=replaced))
            await asyncio.sleep(0.11)
            assert worker.held == 0
            assert gates.stopped == ([] if replaced else ["other"])
            await asyncio.sleep(HOLD)
            assert gates.stopped == ["other"]

    run_virtually(serve())


def test_a_step_that_a_caller_has_reported_is_stopped_and_the_run_goes_on() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("other"))
            await asyncio.sleep(2.0)
            completed = StepState.COMPLETED
            fragment = ArtifactCodec().encode("held", "theirs") + report_fragment("held", completed)
            queue.reported["held"] = StepRecord("held", completed, fragment)
            queue.heard.append(Reported(job_of("other").key, "another run", ("held",)))
            await asyncio.sleep(1.0)
            assert gates.stopped == []
            queue.heard.append(Reported(job_of("other").key, RUN, ("held",)))
            await asyncio.sleep(1.0)
            assert (gates.stopped, queue.finished) == (["other"], ["other"])
            assert worker.held == 0

    run_virtually(serve())


def test_a_run_whose_lease_was_lost_is_stopped_at_the_next_renewal() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates) as worker:
            queue.jobs["next_jobs"].append(job_of("other"))
            await asyncio.sleep(LEASE)
            assert worker.held == 1
            queue.lost.add(job_of("other").key)
            await asyncio.sleep(LEASE / 3 + 0.1)
            assert worker.held == 0
            assert gates.stopped == ["other"]
            assert queue.finished == []

    run_virtually(serve())


def test_all_runs_that_were_left_for_a_worker_are_taken_as_soon_as_it_has_slots() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        names = [f"run-{number}" for number in range(7)]
        async with working(queue, gates, concurrency=3):
            await asyncio.sleep(1.0)
            queue.jobs["unserved_jobs"] += [job_of(name) for name in names]
            await asyncio.sleep(LEASE)
            assert len(gates.begun) == 3
            for name in names:
                gates.open[name].set()
            await asyncio.sleep(0.1)
            assert gates.begun == names

    run_virtually(serve())


def test_a_worker_shows_its_slots_and_how_long_its_steps_took() -> None:
    durations = Durations()

    async def serve() -> WorkerState | None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, durations=durations):
            queue.jobs["next_jobs"].append(job_of("other"))
            await asyncio.sleep(2.0)
            durations.note("test", "held", 1.5)
            await asyncio.sleep(LEASE)
            gates.open["other"].set()
            return queue.shown

    shown = run_virtually(serve())
    assert shown is not None
    assert (shown.slots, shown.busy) == (4, 0)
    assert shown.durations == durations.table() != {}


def test_a_last_try_that_waits_for_its_neighbours_stays_this_worker_s() -> None:
    """Else each worker would reclaim it from the one before, and take no jobs meanwhile."""

    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3):
            queue.jobs["next_jobs"] += [job_of("other"), job_of("last")]
            await asyncio.sleep(MINUTE / 2)
            claims = [at for name, at in queue.times if name == "claim"]
            assert max(after - at for at, after in pairwise(claims[1:])) < LEASE / 2
            assert MINUTE / 2 - claims[-1] < LEASE / 2
            for name in ("other", "last"):
                gates.open[name].set()

    run_virtually(serve())


def test_a_last_try_that_another_worker_has_taken_holds_nothing_up() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3):
            queue.jobs["next_jobs"] += [job_of("other"), job_of("last")]
            await asyncio.sleep(1.0)
            queue.taken.add("last")
            queue.jobs["next_jobs"].append(job_of("new"))
            await asyncio.sleep(LEASE)
            assert gates.begun == ["other", "new"]
            for name in ("other", "new"):
                gates.open[name].set()

    run_virtually(serve())


def test_a_last_try_waits_a_minute_at_most_for_runs_that_wait_for_others() -> None:
    async def serve() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=3, runs=100):
            queue.jobs["next_jobs"] += [*(job_of(f"waits-{n}") for n in range(20)), job_of("last")]
            await asyncio.sleep(1.5 * MINUTE)
            assert gates.begun[-1] == "last"
            assert len(queue.released) == len(gates.stopped) == 20
            gates.open["last"].set()
            await asyncio.sleep(LEASE)
            queue.jobs["next_jobs"].append(job_of("new"))
            await asyncio.sleep(LEASE)
            assert gates.begun[-1] == "new"
            gates.open["new"].set()

    run_virtually(serve())
