"""The worker against the real queue: taking, stopping and handing on runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from headstart_service.domain import Lack, RunKey, Status, StepState
from headstart_service.domain.errors import ExecutorUnavailable, LeaseLost, StoreUnavailable
from headstart_service.store.keys import PartitionKeys
from headstart_service.worker.executors.executors import Executors
from tests.integration.worker.conftest import GAME, UNKNOWN, Games, QueueWrapper, games_on
from tests.support.ledger import tasks_left
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


async def test_a_worker_never_runs_more_at_once_than_it_may(games: Games) -> None:
    names = [f"g{i}" for i in range(10)]
    for name in names:
        await games.start(name)
    async with games.working(concurrency=3):
        await wait_until(lambda: games.control.running == 3)
        stats = await games.store.stats("")
        assert stats.counts == {Status.IN_PROGRESS: 3, Status.PENDING: 7}
        for name in names:
            games.control.gates[name].set()
        for name in names:
            await games.until(name, Status.COMPLETED)
    assert games.control.peak == 3
    assert set(games.control.first.values()) == {1}
    await wait_until(lambda: not tasks_left())


async def test_one_slot_serves_every_partition_in_turn(valkey: Valkey) -> None:
    waits = set()

    class Watched(QueueWrapper):
        async def next_jobs(self, partition, worker, limit, wait):
            waits.add(wait)
            return await self.queue.next_jobs(partition, worker, limit, wait)

    async with games_on(valkey, partitions=8) as games:
        games.queue = Watched(games.queue)
        names = [f"g{i}" for i in range(24)]
        for name in names:
            games.control.gates[name].set()
            await games.start(name)
        async with games.working(concurrency=1):
            for name in names:
                await games.until(name, Status.COMPLETED)
    assert games.control.peak == 1
    assert waits == {0}, "an empty partition must not keep the only slot"


async def test_draining_lets_a_run_end(games: Games) -> None:
    await games.start("g")
    worker = games.worker(drain=20.0)
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: games.control.running)
    worker.stop()
    await games.start("later")
    await asyncio.sleep(0.05)
    assert not serving.done()
    games.control.gates["g"].set()
    await serving
    assert await games.status("g") is Status.COMPLETED
    assert await games.status("later") is Status.PENDING
    await wait_until(lambda: not tasks_left())


async def test_what_a_drain_cuts_off_is_handed_on_with_its_finished_steps(
    games: Games,
) -> None:
    await games.start("g")
    async with games.working("w1", drain=0.05):
        await wait_until(lambda: games.control.running)
    snapshot = await games.snapshot("g")
    assert snapshot.summary.status is Status.PENDING
    assert snapshot.states == {"first": StepState.COMPLETED, "second": StepState.PENDING}
    assert games.control.running == 0
    games.control.gates["g"].set()
    async with games.working("w2"):
        await games.until("g", Status.COMPLETED)
    assert games.control.first["g"] == 1
    assert games.control.second["g"] == 2


async def test_a_worker_that_was_killed_is_replaced_and_finished_steps_are_kept(
    valkey: Valkey,
) -> None:
    async with games_on(valkey, lease=0.6) as games:
        await games.start("g")
        killed = asyncio.create_task(games.worker("w1", lease=0.6).serve())
        await wait_until(lambda: games.control.running)
        await games.until_kept("g", "first")
        killed.cancel()
        await asyncio.wait({killed})
        assert killed.cancelled()
        await wait_until(lambda: not tasks_left())
        assert await games.status("g") is Status.IN_PROGRESS
        games.control.gates["g"].set()
        async with games.working("w2", lease=0.6):
            await games.until("g", Status.COMPLETED)
        assert games.control.first["g"] == 1
        assert games.control.second["g"] == 2


async def test_a_run_outlives_its_lease_because_it_is_renewed(valkey: Valkey) -> None:
    lease = 1.5  # a busy machine may stand still for a second
    async with games_on(valkey, lease=lease) as games:
        await games.start("g")
        async with games.working("w1", lease=lease), games.working("w2", lease=lease):
            await wait_until(lambda: games.control.running)
            long_past_its_lease = asyncio.get_running_loop().time() + 2.2 * lease
            await wait_until(lambda: asyncio.get_running_loop().time() > long_past_its_lease)
            games.control.gates["g"].set()
            await games.until("g", Status.COMPLETED)
        assert games.control.second["g"] == 1


async def test_a_busy_worker_leaves_lost_runs_to_those_who_have_a_slot(valkey: Valkey) -> None:
    async with games_on(valkey, lease=0.5) as games, valkey.client() as client:
        await games.queue.prepare_queue()
        await games.start("lost")
        assert await games.queue.next_jobs(0, "ghost", 1, 0)
        await games.start("g")
        async with games.working("busy", lease=0.5, concurrency=1):
            await wait_until(lambda: games.control.running)

            async def lost_long_ago() -> bool:
                jobs = await client.xpending_range("headstart:{0}:jobs", "workers", "-", "+", 10)
                (lost,) = [job for job in jobs if job["consumer"] == b"ghost"]
                return lost["time_since_delivered"] > 1200

            await wait_until(lost_long_ago)
            games.control.gates["lost"].set()
            async with games.working("free", lease=0.5):
                await games.until("lost", Status.COMPLETED)
            games.control.gates["g"].set()


async def test_looking_for_lost_runs_costs_no_slot(valkey: Valkey) -> None:
    class Counting(QueueWrapper):
        looks = 0

        async def lost_jobs(self, partition, worker, limit):
            self.looks += 1
            return await self.queue.lost_jobs(partition, worker, limit)

    async with games_on(valkey) as games:
        games.queue = Counting(games.queue)
        async with games.working(lease=0.3, concurrency=2):
            await wait_until(lambda: games.queue.looks > 2)
            games.control.gates["g"].set()
            await games.start("g")
            await games.until("g", Status.COMPLETED)


async def test_a_cancelled_run_is_stopped_at_once(
    games: Games, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No step waits for a next revision, which only a replaced run has.
    monkeypatch.setattr("headstart_service.worker.shared_steps.HOLD", 600.0)
    await games.start("g")
    await games.start("other")
    async with games.working(lease=600.0):
        await games.until_heard()
        await wait_until(lambda: games.control.running == 2)
        await games.store.cancel(RunKey("default", "g"))
        await wait_until(lambda: games.control.running == 1)
        games.control.gates["other"].set()
        await games.until("other", Status.COMPLETED)
    assert await games.status("g") is Status.CANCELLED


async def test_a_replaced_run_is_stopped_at_once_and_the_new_one_is_run(games: Games) -> None:
    await games.start("g", "old")
    async with games.working(lease=600.0, concurrency=1):
        await games.until_heard()
        await wait_until(lambda: games.control.second["g"] == 1)
        await games.until_kept("g", "first")
        started = await games.start("g", "new")
        assert started.revision == 2
        await wait_until(lambda: games.control.second["g"] == 2)
        games.control.gates["g"].set()
        await games.until("g", Status.COMPLETED)
        snapshot = await games.snapshot("g")
    assert b"g new" in snapshot.body
    assert snapshot.summary.revision == 2
    assert games.control.peak == 1
    assert games.control.first["g"] == 1, "its inputs have not changed"


async def test_a_late_announcement_of_its_own_start_does_not_stop_a_run(games: Games) -> None:
    await games.start("g")
    await games.start("other")
    async with games.working(lease=600.0), games.valkey.client() as client:
        await games.until_heard()
        await wait_until(lambda: games.control.running == 2)
        run = (await games.snapshot("g")).run
        keys = PartitionKeys(0)
        to = await client.hget(keys.record(RunKey("default", "g")), "to")
        channel = keys.events_of(to.decode().removeprefix(" 0"))
        await client.spublish(channel, f"started {run} gone default:g")
        await client.spublish(channel, "cancelled gone - default:g")
        await client.spublish(channel, "started gone - default:g")
        # Heard after it, and in order.
        await games.store.cancel(RunKey("default", "other"))
        await wait_until(lambda: games.control.running == 1)
        games.control.gates["g"].set()
        await games.until("g", Status.COMPLETED)
    assert games.control.second["g"] == 1


async def test_a_run_cancelled_before_it_is_taken_costs_no_slot(games: Games) -> None:
    await games.start("g")
    await games.store.cancel(RunKey("default", "g"))
    await games.start("other")
    games.control.gates["other"].set()
    async with games.working(concurrency=1):
        await games.until("other", Status.COMPLETED)
    assert games.control.first["g"] == 0


async def test_a_worker_asks_for_no_run_that_was_left_for_others(games: Games) -> None:
    class Counting(QueueWrapper):
        asked = 0

        async def unserved_jobs(self, *arguments):
            self.asked += 1
            return await self.queue.unserved_jobs(*arguments)

    games.queue = Counting(games.queue)
    games.control.gates["other"].set()
    async with games.working():
        await games.until_heard()
        await games.start("g", pipeline=UNKNOWN)
        await wait_until(lambda: _is_left(games))
        await games.start("other")
        await games.until("other", Status.COMPLETED)
        assert games.queue.asked == 0


async def _is_left(games: Games) -> bool:
    return (await games.store.stats("")).unserved == {"unknown": 1}


async def test_a_run_waits_for_a_worker_that_has_its_pipeline(games: Games) -> None:
    for name in ("g", "other"):
        games.control.gates[name].set()
    await games.start("g", pipeline=UNKNOWN)
    await games.start("other")
    assert (await games.snapshot("g")).summary.lacks is Lack.WORKER
    async with games.working():
        await games.until("other", Status.COMPLETED)
        summary = (await games.snapshot("g")).summary
        assert (summary.status, summary.lacks) == (Status.PENDING, Lack.PIPELINE)
        assert (await games.store.stats("")).unserved == {"unknown": 1}
        async with games.working("w2", pipelines=(GAME, UNKNOWN)):
            await games.until("g", Status.COMPLETED)
            assert (await games.snapshot("g")).summary.lacks is None
    assert (await games.store.stats("")).unserved == {}


async def test_a_bug_in_the_worker_itself_surfaces_and_leaves_nothing(games: Games) -> None:
    class Broken(QueueWrapper):
        async def claim(self, job, worker, offers, **may):
            if job.key.key == "bug":
                raise RuntimeError("a bug")
            return await self.queue.claim(job, worker, offers, **may)

    games.queue = Broken(games.queue)
    await games.start("g")
    worker = games.worker()
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: games.control.running)
    await games.start("bug")
    async with asyncio.timeout(5):
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            await serving
    assert games.control.running == 0
    await wait_until(lambda: not tasks_left())


@pytest.fixture
async def short_leases(valkey: Valkey) -> AsyncIterator[Games]:
    async with games_on(valkey, lease=1.2) as made:
        yield made


async def test_a_worker_that_gets_no_jobs_offers_nothing_but_while_it_has_enough_to_do(
    short_leases: Games,
) -> None:
    games = short_leases

    class Refusing(QueueWrapper):
        offered = 0
        refuses = True

        async def next_jobs(self, partition, worker, limit, wait):
            if self.refuses:
                raise StoreUnavailable("no right")
            return await self.queue.next_jobs(partition, worker, limit, wait)

        async def offer(self, partition, worker, offers):
            self.offered += 1
            return await self.queue.offer(partition, worker, offers)

    await games.start("lost")
    await games.queue.prepare_queue()
    assert await games.queue.next_jobs(0, "dead", 1, 0)
    games.queue = Refusing(games.queue)
    worker = games.worker(concurrency=1, lease=0.3)
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: worker.problem)
    assert worker.problem == "no right"
    before = games.queue.offered
    await wait_until(lambda: games.control.running)  # one that it took over
    assert games.queue.offered <= before + 1
    assert worker.problem == ""
    before = games.queue.offered
    await wait_until(lambda: games.queue.offered > before + 1)
    games.control.gates["lost"].set()
    await wait_until(lambda: worker.problem)
    games.queue.refuses = False
    await wait_until(lambda: not worker.problem)
    worker.stop()
    await serving


@pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit("secret")])
async def test_a_run_that_breaks_the_runner_fails_alone(
    games: Games, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def broken(*_: object) -> Status:
        raise error

    monkeypatch.setattr("headstart_service.worker.worker.run", broken)
    await games.start("g")
    async with games.working():
        await games.until("g", Status.FAILED)
    reason = (await games.snapshot("g")).summary.error
    assert reason.startswith("internal error ")
    assert "secret" not in reason


async def test_losing_the_lease_while_failing_a_run_does_not_end_the_worker(
    games: Games,
) -> None:
    class Fenced(QueueWrapper):
        lost = 0

        async def finish(self, lease, ended, status, error, failure_reason=None, slot_seconds=None):
            if status is Status.FAILED:
                self.lost += 1
                raise LeaseLost("default/g")
            await self.queue.finish(lease, ended, status, error, failure_reason)

    games.queue = Fenced(games.queue)
    unfit = b'{"no": "name"}'
    plan = UNKNOWN.plan({"name": "g"}, "")
    plan = type(plan)("game", unfit, GAME.definition, plan.digest, plan.steps)
    await games.store.start(RunKey("default", "g"), plan, 60.0, restart=False)
    async with games.working():
        await wait_until(lambda: games.queue.lost)
        games.control.gates["other"].set()
        await games.start("other")
        await games.until("other", Status.COMPLETED)


@pytest.mark.parametrize("bug", ["", "a bug"])
async def test_a_cancellation_that_a_library_swallows_does_not_keep_a_worker(
    games: Games, bug: str
) -> None:
    """As Python 3.11's wait_for does, when what it waits for is done at the same moment."""

    class Swallowing(QueueWrapper):
        looking = asyncio.Event()
        swallowed = False

        async def lost_jobs(self, partition, worker, limit):
            self.looking.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.swallowed:
                    raise
                self.swallowed = True
            return []

        async def renew(self, leases, worker):
            await self.looking.wait()
            if bug:
                raise RuntimeError(bug)
            return []

    games.queue = Swallowing(games.queue)
    worker = games.worker(lease=0.03)
    serving = asyncio.create_task(worker.serve())
    await games.queue.looking.wait()
    if not bug:
        worker.stop()
    async with asyncio.timeout(15):
        await asyncio.wait({serving})
    assert games.queue.swallowed
    assert bool(serving.exception()) == bool(bug)
    await wait_until(lambda: not tasks_left())


async def test_a_run_whose_place_is_away_is_handed_on_and_not_failed(games: Games, caplog) -> None:
    away, asked = ExecutorUnavailable("Ray is away"), 0

    class Away(Executors):
        async def ready(self, each) -> None:
            nonlocal asked
            if each.name == "second":
                asked += 1
                if asked == 1:
                    await games.until_kept("g", "first")
                    raise away

    await games.start("g")
    games.control.gates["g"].set()
    async with Away() as executors, games.working(executors=executors):
        await games.until("g", Status.COMPLETED)
    assert "default/g handed on: Ray is away" in caplog.text
    assert asked == 2
    assert games.control.first["g"] == 1  # what had ended was kept


async def test_a_worker_takes_no_run_that_it_cannot_compute_at_the_moment(
    games: Games,
) -> None:
    class Broken(Executors):
        unavailable: ClassVar = {"game": "Ray is away"}

    games.control.gates["g"].set()
    async with Broken() as executors, games.working(executors=executors):
        await games.start("g")
        await wait_until(lambda: _lacks(games, "g", Lack.PIPELINE))
        executors.unavailable = {}
        executors.changed()
        await games.until("g", Status.COMPLETED)


async def _lacks(games: Games, name: str, what: Lack) -> bool:
    summary = (await games.snapshot(name)).summary
    stats = await games.store.stats("")
    return summary.lacks is what and stats.unserved == {"game": 1}
