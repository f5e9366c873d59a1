"""The server's clock is set back an hour: what was written before lies ahead of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from headstart_service.domain import Lack, RunKey, WorkerState
from headstart_service.store.keys import GROUP
from headstart_service.store.repartition import StoreInUse, repartition
from tests.contract.backend import OFFER, Backend, plan
from tests.support.clock import HOUR, Clock
from tests.support.deployments import Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import REDIS_TICK, wait_until

KEY = RunKey("games", "game-1")
LEASE = 0.2


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
async def backend(tmp_path: Path, clock: Clock) -> AsyncIterator[Backend]:
    """On a server of one's own, whose clock the test sets."""
    valkey = Valkey(tmp_path, clock.environment)
    await valkey.start()
    try:
        async with Backend.open(Deployment(valkey.url, (valkey.url,)), 1) as opened:
            await opened.queue.sweep()
            yield opened
    finally:
        await valkey.kill()


async def test_a_lost_workers_run_is_taken_over_after_a_lease(
    backend: Backend, clock: Clock
) -> None:
    queue = backend.new_queue(lease=LEASE)
    await backend.begin(KEY)
    await backend.queue.sweep()
    clock.set(-HOUR)

    async def taken() -> bool:
        await queue.sweep()
        return [job.key for job in await queue.lost_jobs(0, "w2", 10)] == [KEY]

    await wait_until(taken)


async def test_leases_that_are_renewed_hold(backend: Backend, clock: Clock) -> None:
    lease = 1.0
    queue = backend.new_queue(lease=lease)
    renewed = time.monotonic()
    claim = await backend.begin(KEY)
    await queue.sweep()
    clock.set(-HOUR)
    for _ in range(8):
        await queue.sweep()
        if await queue.lost_jobs(0, "w2", 10):
            # A machine so busy that the lease ran out between the two says nothing.
            assert time.monotonic() - renewed > lease - REDIS_TICK
            return
        renewed = time.monotonic()
        assert await queue.renew([claim.lease], "w1") == []
        await asyncio.sleep(0.15)


async def test_every_lease_begins_anew_however_many_there_are(
    backend: Backend, clock: Clock
) -> None:
    """One XPENDING shows a thousand."""
    store = backend.new_store(max_records=2000)
    keys = [RunKey("games", f"game-{number}") for number in range(1010)]
    await asyncio.gather(*(store.start(key, plan(), 1800, restart=False) for key in keys))
    entries = [job.entry for job in await backend.jobs("w1", limit=2000)]
    await backend.queue.sweep()
    clock.set(-HOUR)

    async def idle(entry: str) -> bool:
        await backend.queue.sweep()
        jobs = backend.keys_of(KEY).jobs
        [found] = await backend.raw.xpending_range(jobs, GROUP, entry, entry, 1)
        return bool(found["time_since_delivered"] > 0)

    for entry in (entries[-1], entries[0]):
        await wait_until(lambda entry=entry: idle(entry), within=20)
    await store.aclose()


async def test_a_lost_workers_offers_end_as_soon_as_they_would_have(
    backend: Backend, clock: Clock
) -> None:
    await backend.new_queue(lease=1.0).offer(0, "w1", [OFFER])
    await backend.start(KEY)
    await backend.queue.sweep()
    clock.set(-HOUR)

    async def ended() -> bool:
        await backend.store.orphans(["probe@v1"], 60, 10)
        return (await backend.store.read(KEY)).summary.lacks is Lack.WORKER

    await wait_until(ended)


async def test_a_lost_worker_is_shown_no_longer_than_to_the_next_ones_beat(
    store_backend: Backend,
) -> None:
    def state(name: str) -> WorkerState:
        return WorkerState(
            name=name, host="h", version="1", pipelines=(), slots=1, busy=0, started_us=1
        )

    await store_backend.queue.heartbeat(state("lost"), HOUR)  # as one that was written ahead
    await store_backend.queue.heartbeat(state("new"), 10)
    assert [worker.name for worker in await store_backend.store.workers(10)] == ["new"]


async def test_a_killed_process_does_not_keep_the_store_from_being_moved(
    backend: Backend, clock: Clock
) -> None:
    layout = backend.store.layout
    await layout.agree_all("api killed", 10.0)
    assert await layout.live() == ["api killed"]
    clock.set(-HOUR)

    async def moves() -> bool:
        with suppress(StoreInUse):
            return await repartition(layout.client, 2, lambda _: None) is not None
        return False

    await wait_until(moves)


async def test_a_clock_that_runs_on_begins_no_lease_anew(backend: Backend) -> None:
    queue = backend.new_queue(lease=LEASE)
    await backend.begin(KEY)

    async def taken() -> bool:
        await queue.sweep()
        return bool(await queue.lost_jobs(0, "w2", 10))

    await wait_until(taken)
