"""What callers and workers see when Redis goes, hangs, forgets or is full: on a server of one's own."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import CapacityExhausted, StoreUnavailable
from headstart_service.store.batches import answered
from headstart_service.store.connect import API, BLOCKING, check_version, open_client
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_observer import SKIPPED, Unwatched
from tests.contract.backend import Backend, done, plan
from tests.support.deployments import Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")
BUDGET = 0.25


@pytest.fixture
async def backend(valkey: Valkey) -> AsyncIterator[Backend]:
    """On a server that the test may kill."""
    async with Backend.open(Deployment(valkey.url, (valkey.url,)), 1) as opened:
        yield opened


@pytest.fixture
def api(backend: Backend) -> RedisStore:
    """The store as an API process has it."""
    return RedisStore(
        backend.client(API), backend.rules(), budget=BUDGET, connections=API.connections
    )


QUICKLY = 3.5
"""Seconds: budgets are a tenth of it, and redis-py's own defaults take 3.8 s and more."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@contextmanager
def frozen(valkey: Valkey) -> Iterator[None]:
    """The server lives and listens, and says nothing."""
    assert valkey.process is not None
    valkey.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        valkey.process.send_signal(signal.SIGCONT)


def every_call(store: RedisStore) -> list[Callable[[], object]]:
    return [
        store.ping,
        lambda: store.start(KEY, plan(), 60, restart=False),
        lambda: store.read(KEY),
        lambda: store.status(KEY),
        lambda: store.cancel(KEY),
        lambda: store.list("", list(Status), None, 10),
        lambda: store.stats(""),
    ]


async def test_every_call_fails_quickly_when_redis_was_killed(
    valkey: Valkey, api: RedisStore
) -> None:
    await api.ping()
    await valkey.kill()
    for call in every_call(api):
        with within(QUICKLY), pytest.raises(StoreUnavailable):
            await call()


async def test_every_call_fails_quickly_when_redis_hangs(valkey: Valkey, api: RedisStore) -> None:
    await api.ping()
    with frozen(valkey):
        for call in every_call(api):
            with within(QUICKLY), pytest.raises(StoreUnavailable):
                await call()


async def test_many_callers_of_a_redis_that_hangs_need_not_wait_for_one_another(
    valkey: Valkey, api: RedisStore
) -> None:
    await api.ping()
    with frozen(valkey), within(QUICKLY):
        failures = await asyncio.gather(
            *(api.read(KEY) for _ in range(300)), return_exceptions=True
        )
    assert {type(failure) for failure in failures} == {StoreUnavailable}
    await wait_until(lambda: _answers(api))


async def test_a_redis_that_stays_away_is_asked_by_one_at_a_time_and_found_when_it_is_back(
    valkey: Valkey, backend: Backend
) -> None:
    lost = 0

    class Trips(Unwatched):
        def failed(self, command: str, calls: int, error: str) -> None:
            nonlocal lost
            lost += error != SKIPPED

    api = RedisStore(
        backend.client(API),
        backend.rules(),
        budget=BUDGET,
        connections=API.connections,
        observer=Trips(),
    )
    await api.ping()
    with frozen(valkey):
        for _ in range(3):
            assert not await _answers(api)
        began, before = time.monotonic(), lost
        with pytest.raises(StoreUnavailable, match="others found out before"):
            while True:
                await api.read(KEY)
        asked = 0
        while time.monotonic() - began < 1:
            failures = await asyncio.gather(
                *(api.read(KEY) for _ in range(100)), return_exceptions=True
            )
            assert {type(failure) for failure in failures} == {StoreUnavailable}
            asked += len(failures)
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - began
        # One each budget and pause; 20 at once, 4 times a second, without the breaker.
        assert lost - before <= seconds / 0.2 + 1 < asked
    await wait_until(lambda: _answers(api))


async def _answers(store: RedisStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


async def test_the_store_is_back_when_redis_is_back(valkey: Valkey, api: RedisStore) -> None:
    await api.start(KEY, plan(), 60, restart=False)
    await valkey.kill()
    assert not await _answers(api)
    await valkey.start()
    await wait_until(lambda: _answers(api))
    assert (await api.read(KEY)).summary.status is Status.PENDING


async def test_calls_that_are_cancelled_before_their_turn_leave_nothing_behind(
    backend: Backend, api: RedisStore
) -> None:
    """Least of all a coroutine that was never awaited: the suite makes that warning an error."""
    calls = [asyncio.ensure_future(api.ping()) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await api.ping()


async def test_a_worker_outlasts_a_restart_of_redis(valkey: Valkey, backend: Backend) -> None:
    claim = await backend.begin(KEY)
    await valkey.kill()
    ended = [done("first"), done("second")]
    finishing = asyncio.create_task(backend.queue.finish(claim.lease, ended, Status.COMPLETED, ""))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.shield(finishing)
    await valkey.start()
    await finishing
    assert (await backend.store.read(KEY)).summary.status is Status.COMPLETED


async def test_a_worker_is_told_when_its_budget_is_over(valkey: Valkey, backend: Backend) -> None:
    claim = await backend.begin(KEY)
    await valkey.kill()
    queue = backend.new_queue(budget=0.3)
    with within(QUICKLY):
        for call in (
            queue.prepare_queue(),
            queue.lost_jobs(0, "w1", 1),
            queue.commit(claim.lease, [], []),
            queue.renew([claim.lease], "w1"),
            queue.sweep(),
            queue.deregister("w1"),
        ):
            with pytest.raises(StoreUnavailable):
                await call


async def test_waiting_for_jobs_ends_when_redis_is_killed(valkey: Valkey, backend: Backend) -> None:
    await backend.queue.prepare_queue()
    waiting = asyncio.create_task(backend.queue.next_jobs(0, "w1", 1, 60))
    await wait_until(lambda: backend.deployment.info("clients", "blocked_clients") == 1)
    await valkey.kill()
    with within(QUICKLY), pytest.raises(StoreUnavailable):
        await waiting


async def test_the_consumer_group_heals_after_everything_was_flushed(backend: Backend) -> None:
    await backend.start(KEY)
    [job] = await backend.jobs()
    backend.deployment.wipe()
    with pytest.raises(StoreUnavailable):
        await backend.queue.claim(job, "w1")
    with pytest.raises(StoreUnavailable):
        await backend.queue.next_jobs(0, "w1", 1, 0)
    await backend.start(KEY)
    [job] = await backend.queue.next_jobs(0, "w1", 1, 0)
    assert await backend.queue.claim(job, "w1") is not None
    backend.deployment.wipe()
    with pytest.raises(StoreUnavailable):
        await backend.queue.lost_jobs(0, "w1", 1)
    assert await backend.queue.lost_jobs(0, "w1", 1) == []


async def test_leases_are_lost_and_leaving_works_after_everything_was_flushed(
    backend: Backend,
) -> None:
    claim = await backend.begin(KEY)
    backend.deployment.wipe()
    assert await backend.queue.renew([claim.lease], "w1") == [claim.lease]
    await backend.queue.release(claim.lease)
    await backend.queue.deregister("w1")
    assert (await backend.store.stats("")).counts == {}
    assert backend.deployment.ttls() == {"headstart:{0}:layout": -1}


async def test_forgotten_scripts_are_loaded_again(backend: Backend) -> None:
    claim = await backend.begin(KEY)
    async with backend.client(API) as client:
        await client.script_flush()
        await backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
        await client.script_flush()
        assert (await backend.store.read(KEY)).body == b"<first>"


async def test_full_memory_refuses_starts_changes_nothing_and_lets_the_rest_go_on(
    backend: Backend,
) -> None:
    other, old = RunKey("games", "game-2"), RunKey("games", "game-3")
    await backend.complete(old)
    claim = await backend.begin(KEY)
    await backend.start(other)
    small = backend.new_store(max_records=3)
    async with backend.client(API) as client:
        await client.config_set("maxmemory", "1")
        before = backend.deployment.dump()
        for key, wanted in ((RunKey("games", "new"), plan()), (KEY, plan("d2")), (old, plan("d2"))):
            with pytest.raises(CapacityExhausted):
                await small.start(key, wanted, 60, restart=False)
        assert backend.deployment.dump() == before
        await backend.queue.prepare_queue()
        await backend.queue.commit(claim.lease, [done("first")], [])
        await backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
        await backend.queue.release((await backend.claim()).lease)
        assert (await backend.store.cancel(other)).cancelled
        assert (await backend.store.read(KEY)).summary.status is Status.COMPLETED


async def test_a_redis_that_refuses_to_write_counts_as_away(
    valkey: Valkey, api: RedisStore
) -> None:
    await api.ping()
    async with valkey.client() as redis:
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            await api.ping()
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    await api.ping()


async def test_a_lost_subscription_is_reported(valkey: Valkey, backend: Backend) -> None:
    async with backend.announcements() as heard:
        listening = asyncio.ensure_future(anext(heard))
        await valkey.kill()
        with within(QUICKLY), pytest.raises(StoreUnavailable, match="subscription lost"):
            await listening


async def test_a_subscription_notices_a_restart_however_quick(
    valkey: Valkey, backend: Backend
) -> None:
    """What was announced meanwhile is lost, so it must not heal in silence."""
    async with backend.announcements() as heard:
        await valkey.kill()
        await valkey.start()
        with within(QUICKLY), pytest.raises(StoreUnavailable):
            await anext(heard)


async def test_nobody_can_subscribe_to_a_redis_that_is_away(
    valkey: Valkey, backend: Backend
) -> None:
    await valkey.kill()
    with within(QUICKLY), pytest.raises(StoreUnavailable, match="cannot subscribe"):
        async with backend.announcements():
            pass


async def test_a_silent_subscription_is_kept_while_redis_lives_and_lost_when_it_hangs(
    valkey: Valkey, backend: Backend
) -> None:
    # A proof of life must come within as long, on a busy machine as well.
    async with backend.announcements(silence=0.3) as heard:
        listening = asyncio.ensure_future(anext(heard))

        async def pings() -> int:
            calls: int = (await backend.redis("INFO", "commandstats"))["cmdstat_ping"]["calls"]
            return calls

        async def proven(before: int = await pings()) -> bool:
            return await pings() >= before + 3

        await wait_until(proven)
        assert not listening.done()
        with frozen(valkey), within(QUICKLY), pytest.raises(StoreUnavailable, match="silence"):
            await asyncio.wait_for(listening, 5)


async def test_the_version_of_a_redis_that_is_away_is_unavailable(valkey: Valkey) -> None:
    client = open_client(valkey.url, BLOCKING)
    assert (await check_version(client)).startswith("Valkey ")
    await valkey.kill()
    with within(QUICKLY), pytest.raises(StoreUnavailable):
        await check_version(client)
    await client.aclose()


@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), AttributeError("None")])
async def test_a_connection_that_is_lost_while_it_is_used_is_an_outage(error: Exception) -> None:
    """As uvloop and redis-py tell it; a worker that took it for a bug would end."""

    async def call() -> None:
        raise error

    with pytest.raises(StoreUnavailable):
        await answered(call(), 1)
