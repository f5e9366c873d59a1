"""The worker against the real queue: taking, stopping and handing on runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from headstart_service.domain import Lack, RunKey, Status, StepState
from headstart_service.domain.errors import ExecutorUnavailable, LeaseLost, StoreUnavailable
from headstart_service.worker.executors.executors import Executors
from tests.integration.worker.conftest import GAME, UNKNOWN, Backend, QueueWrapper, backend_on
from tests.support.ledger import tasks_left
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


async def test_a_worker_never_runs_more_at_once_than_it_may(backend: Backend) -> None:
    names = [f"g{i}" for i in range(10)]
    for name in names:
        await backend.start(name)
    async with backend.working(concurrency=3):
        await wait_until(lambda: backend.control.running == 3)
        stats = await backend.store.stats("")
        assert stats.counts == {Status.IN_PROGRESS: 3, Status.PENDING: 7}
        for name in names:
            backend.control.gates[name].set()
        for name in names:
            await backend.until(name, Status.COMPLETED)
    assert backend.control.peak == 3
    assert set(backend.control.first.values()) == {1}
    await wait_until(lambda: not tasks_left())


async def test_one_slot_serves_every_partition_in_turn(valkey: Valkey) -> None:
    waits = set()

    class Watched(QueueWrapper):
        async def next_jobs(self, partition, worker, limit, wait):
            waits.add(wait)
            return await self.queue.next_jobs(partition, worker, limit, wait)

    async with backend_on(valkey, partitions=8) as backend:
        backend.queue = Watched(backend.queue)
        names = [f"g{i}" for i in range(24)]
        for name in names:
            backend.control.gates[name].set()
            await backend.start(name)
        async with backend.working(concurrency=1):
            for name in names:
                await backend.until(name, Status.COMPLETED)
    assert backend.control.peak == 1
    assert waits == {0}, "an empty partition must not keep the only slot"


async def test_draining_lets_a_run_end(backend: Backend) -> None:
    await backend.start("g")
    worker = backend.worker(drain=20.0)
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: backend.control.running)
    worker.stop()
    await backend.start("later")
    await asyncio.sleep(0.05)
    assert not serving.done()
    backend.control.gates["g"].set()
    await serving
    assert await backend.status("g") is Status.COMPLETED
    assert await backend.status("later") is Status.PENDING
    await wait_until(lambda: not tasks_left())


async def test_what_a_drain_cuts_off_is_handed_on_with_its_finished_steps(
    backend: Backend,
) -> None:
    await backend.start("g")
    async with backend.working("w1", drain=0.05):
        await wait_until(lambda: backend.control.running)
    snapshot = await backend.snapshot("g")
    assert snapshot.summary.status is Status.PENDING
    assert snapshot.states == {"first": StepState.COMPLETED, "second": StepState.PENDING}
    assert backend.control.running == 0
    backend.control.gates["g"].set()
    async with backend.working("w2"):
        await backend.until("g", Status.COMPLETED)
    assert backend.control.first["g"] == 1
    assert backend.control.second["g"] == 2


async def test_a_worker_that_was_killed_is_replaced_and_finished_steps_are_kept(
    valkey: Valkey,
) -> None:
    async with backend_on(valkey, lease=0.6) as backend:
        await backend.start("g")
        killed = asyncio.create_task(backend.worker("w1", lease=0.6).serve())
        await wait_until(lambda: backend.control.running)
        await backend.until_kept("g", "first")
        killed.cancel()
        await asyncio.wait({killed})
        assert killed.cancelled()
        await wait_until(lambda: not tasks_left())
        assert await backend.status("g") is Status.IN_PROGRESS
        backend.control.gates["g"].set()
        async with backend.working("w2", lease=0.6):
            await backend.until("g", Status.COMPLETED)
        assert backend.control.first["g"] == 1
        assert backend.control.second["g"] == 2


async def test_a_run_outlives_its_lease_because_it_is_renewed(valkey: Valkey) -> None:
    async with backend_on(valkey, lease=1.0) as backend:
        await backend.start("g")
        async with backend.working("w1", lease=1.0), backend.working("w2", lease=1.0):
            await wait_until(lambda: backend.control.running)
            long_past_its_lease = asyncio.get_running_loop().time() + 2.2
            await wait_until(lambda: asyncio.get_running_loop().time() > long_past_its_lease)
            backend.control.gates["g"].set()
            await backend.until("g", Status.COMPLETED)
        assert backend.control.second["g"] == 1


async def test_a_busy_worker_leaves_lost_runs_to_those_who_have_a_slot(valkey: Valkey) -> None:
    async with backend_on(valkey, lease=0.5) as backend, valkey.client() as client:
        await backend.queue.prepare_queue()
        await backend.start("lost")
        assert await backend.queue.next_jobs(0, "ghost", 1, 0)
        await backend.start("g")
        async with backend.working("busy", lease=0.5, concurrency=1):
            await wait_until(lambda: backend.control.running)

            async def lost_long_ago() -> bool:
                jobs = await client.xpending_range("headstart:{0}:jobs", "workers", "-", "+", 10)
                (lost,) = [job for job in jobs if job["consumer"] == b"ghost"]
                return lost["time_since_delivered"] > 1200

            await wait_until(lost_long_ago)
            backend.control.gates["lost"].set()
            async with backend.working("free", lease=0.5):
                await backend.until("lost", Status.COMPLETED)
            backend.control.gates["g"].set()


async def test_looking_for_lost_runs_costs_no_slot(valkey: Valkey) -> None:
    class Counting(QueueWrapper):
        looks = 0

        async def lost_jobs(self, partition, worker, limit):
            self.looks += 1
            return await self.queue.lost_jobs(partition, worker, limit)

    async with backend_on(valkey) as backend:
        backend.queue = Counting(backend.queue)
        async with backend.working(lease=0.3, concurrency=2):
            await wait_until(lambda: backend.queue.looks > 2)
            backend.control.gates["g"].set()
            await backend.start("g")
            await backend.until("g", Status.COMPLETED)


async def test_a_cancelled_run_is_stopped_at_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No step waits for a next revision, which only a replaced run has.
    monkeypatch.setattr("headstart_service.worker.shared_steps.HOLD", 600.0)
    await backend.start("g")
    await backend.start("other")
    async with backend.working(lease=600.0):
        await backend.until_heard()
        await wait_until(lambda: backend.control.running == 2)
        await backend.store.cancel(RunKey("default", "g"))
        await wait_until(lambda: backend.control.running == 1)
        backend.control.gates["other"].set()
        await backend.until("other", Status.COMPLETED)
    assert await backend.status("g") is Status.CANCELLED


async def test_a_replaced_run_is_stopped_at_once_and_the_new_one_is_run(backend: Backend) -> None:
    await backend.start("g", "old")
    async with backend.working(lease=600.0, concurrency=1):
        await backend.until_heard()
        await wait_until(lambda: backend.control.second["g"] == 1)
        await backend.until_kept("g", "first")
        started = await backend.start("g", "new")
        assert started.revision == 2
        await wait_until(lambda: backend.control.second["g"] == 2)
        backend.control.gates["g"].set()
        await backend.until("g", Status.COMPLETED)
        snapshot = await backend.snapshot("g")
    assert b"g new" in snapshot.body
    assert snapshot.summary.revision == 2
    assert backend.control.peak == 1
    assert backend.control.first["g"] == 1, "its inputs have not changed"


async def test_a_late_announcement_of_its_own_start_does_not_stop_a_run(backend: Backend) -> None:
    await backend.start("g")
    await backend.start("other")
    async with backend.working(lease=600.0), backend.valkey.client() as client:
        await backend.until_heard()
        await wait_until(lambda: backend.control.running == 2)
        run = (await backend.snapshot("g")).run
        await client.publish("headstart:{0}:events:0", f"started {run} gone default:g")
        await client.publish("headstart:{0}:events:0", "cancelled gone - default:g")
        await client.publish("headstart:{0}:events:0", "started gone - default:g")
        # Heard after it, and in order.
        await backend.store.cancel(RunKey("default", "other"))
        await wait_until(lambda: backend.control.running == 1)
        backend.control.gates["g"].set()
        await backend.until("g", Status.COMPLETED)
    assert backend.control.second["g"] == 1


async def test_a_run_cancelled_before_it_is_taken_costs_no_slot(backend: Backend) -> None:
    await backend.start("g")
    await backend.store.cancel(RunKey("default", "g"))
    await backend.start("other")
    backend.control.gates["other"].set()
    async with backend.working(concurrency=1):
        await backend.until("other", Status.COMPLETED)
    assert backend.control.first["g"] == 0


async def test_a_worker_asks_for_no_run_that_was_left_for_others(backend: Backend) -> None:
    class Counting(QueueWrapper):
        asked = 0

        async def unserved_jobs(self, *arguments):
            self.asked += 1
            return await self.queue.unserved_jobs(*arguments)

    backend.queue = Counting(backend.queue)
    backend.control.gates["other"].set()
    async with backend.working():
        await backend.until_heard()
        await backend.start("g", pipeline=UNKNOWN)
        await wait_until(lambda: _is_left(backend))
        await backend.start("other")  # announced behind it
        await backend.until("other", Status.COMPLETED)
        assert backend.queue.asked == 0


async def _is_left(backend: Backend) -> bool:
    return (await backend.store.stats("")).unserved == {"unknown": 1}


async def test_a_run_waits_for_a_worker_that_has_its_pipeline(backend: Backend) -> None:
    for name in ("g", "other"):
        backend.control.gates[name].set()
    await backend.start("g", pipeline=UNKNOWN)
    await backend.start("other")
    assert (await backend.snapshot("g")).summary.lacks is Lack.WORKER
    async with backend.working():
        await backend.until("other", Status.COMPLETED)
        summary = (await backend.snapshot("g")).summary
        assert (summary.status, summary.lacks) == (Status.PENDING, Lack.PIPELINE)
        assert (await backend.store.stats("")).unserved == {"unknown": 1}
        async with backend.working("w2", pipelines=(GAME, UNKNOWN)):
            await backend.until("g", Status.COMPLETED)
            assert (await backend.snapshot("g")).summary.lacks is None
    assert (await backend.store.stats("")).unserved == {}


async def test_a_bug_in_the_worker_itself_surfaces_and_leaves_nothing(backend: Backend) -> None:
    class Broken(QueueWrapper):
        async def claim(self, job, worker, offers, **may):
            if job.key.key == "bug":
                raise RuntimeError("a bug")
            return await self.queue.claim(job, worker, offers, **may)

    backend.queue = Broken(backend.queue)
    await backend.start("g")
    worker = backend.worker()
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: backend.control.running)
    await backend.start("bug")
    async with asyncio.timeout(5):
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            await serving
    assert backend.control.running == 0
    await wait_until(lambda: not tasks_left())


@pytest.fixture
async def short_leases(valkey: Valkey) -> AsyncIterator[Backend]:
    async with backend_on(valkey, lease=1.2) as made:
        yield made


async def test_a_worker_that_gets_no_jobs_offers_nothing_but_while_it_has_enough_to_do(
    short_leases: Backend,
) -> None:
    backend = short_leases

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

    await backend.start("lost")
    await backend.queue.prepare_queue()
    assert await backend.queue.next_jobs(0, "dead", 1, 0)
    backend.queue = Refusing(backend.queue)
    worker = backend.worker(concurrency=1, lease=0.3)
    serving = asyncio.create_task(worker.serve())
    await wait_until(lambda: worker.problem)
    assert worker.problem == "no right"
    before = backend.queue.offered
    await wait_until(lambda: backend.control.running)  # one that it took over
    assert backend.queue.offered <= before + 1
    assert worker.problem == ""
    before = backend.queue.offered
    await wait_until(lambda: backend.queue.offered > before + 1)
    backend.control.gates["lost"].set()
    await wait_until(lambda: worker.problem)
    backend.queue.refuses = False
    await wait_until(lambda: not worker.problem)
    worker.stop()
    await serving


@pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit("secret")])
async def test_a_run_that_breaks_the_runner_fails_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def broken(*_: object) -> Status:
        raise error

    monkeypatch.setattr("headstart_service.worker.worker.run", broken)
    await backend.start("g")
    async with backend.working():
        await backend.until("g", Status.FAILED)
    reason = (await backend.snapshot("g")).summary.error
    assert reason.startswith("internal error ")
    assert "secret" not in reason


async def test_losing_the_lease_while_failing_a_run_does_not_end_the_worker(
    backend: Backend,
) -> None:
    class Fenced(QueueWrapper):
        lost = 0

        async def finish(self, lease, ended, status, error):
            if status is Status.FAILED:
                self.lost += 1
                raise LeaseLost("default/g")
            await self.queue.finish(lease, ended, status, error)

    backend.queue = Fenced(backend.queue)
    unfit = b'{"no": "name"}'
    plan = UNKNOWN.plan({"name": "g"}, "")
    plan = type(plan)("game", unfit, GAME.definition, plan.digest, plan.steps)
    await backend.store.start(RunKey("default", "g"), plan, 60.0, restart=False)
    async with backend.working():
        await wait_until(lambda: backend.queue.lost)
        backend.control.gates["other"].set()
        await backend.start("other")
        await backend.until("other", Status.COMPLETED)


@pytest.mark.parametrize("bug", ["", "a bug"])
async def test_a_cancellation_that_a_library_swallows_does_not_keep_a_worker(
    backend: Backend, bug: str
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

    backend.queue = Swallowing(backend.queue)
    worker = backend.worker(lease=0.03)
    serving = asyncio.create_task(worker.serve())
    await backend.queue.looking.wait()
    if not bug:
        worker.stop()
    async with asyncio.timeout(15):
        await asyncio.wait({serving})
    assert backend.queue.swallowed
    assert bool(serving.exception()) == bool(bug)
    await wait_until(lambda: not tasks_left())


async def test_a_run_whose_place_is_away_is_handed_on_and_not_failed(
    backend: Backend, caplog
) -> None:
    away, asked = ExecutorUnavailable("Ray is away"), 0

    class Away(Executors):
        async def ready(self, each) -> None:
            nonlocal asked
            if each.name == "second":
                asked += 1
                if asked == 1:
                    await backend.until_kept("g", "first")
                    raise away

    await backend.start("g")
    backend.control.gates["g"].set()
    async with Away() as executors, backend.working(executors=executors):
        await backend.until("g", Status.COMPLETED)
    assert "default/g handed on: Ray is away" in caplog.text
    assert asked == 2
    assert backend.control.first["g"] == 1  # what had ended was kept


async def test_a_worker_takes_no_run_that_it_cannot_compute_at_the_moment(
    backend: Backend,
) -> None:
    class Broken(Executors):
        unavailable: ClassVar = {"game": "Ray is away"}

    backend.control.gates["g"].set()
    async with Broken() as executors, backend.working(executors=executors):
        await backend.start("g")
        await wait_until(lambda: _lacks(backend, "g", Lack.PIPELINE))
        executors.unavailable = {}
        executors.changed()
        await backend.until("g", Status.COMPLETED)


async def _lacks(backend: Backend, name: str, what: Lack) -> bool:
    summary = (await backend.snapshot(name)).summary
    stats = await backend.store.stats("")
    return summary.lacks is what and stats.unserved == {"game": 1}
