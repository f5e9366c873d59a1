"""Runs of megabytes: read whole, and at the expense of nobody else."""

from __future__ import annotations

import asyncio

from headstart_service.domain import RunKey, Status
from headstart_service.store.connect import API, LARGE
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend, done, running

MEGABYTE = 1 << 20
READERS = 12


async def ended(backend: Backend, key: RunKey, result: bytes) -> None:
    claim = await backend.begin(key)
    await backend.queue.finish(claim.lease, [done("first", result)], Status.COMPLETED, "")


async def test_a_large_run_is_read_whole_and_counts_as_read(store_backend: Backend) -> None:
    key = RunKey("games", "large")
    claim = await store_backend.begin(key)
    result = b"x" * MEGABYTE
    await store_backend.queue.commit(claim.lease, [done("first", result)], [running("second")])
    seen = await store_backend.store.read(key)
    look = (await store_backend.store.peek(key)).snapshot
    assert (seen.summary, seen.states, seen.running) == (look.summary, look.states, look.running)
    assert seen.body.count(b"x") == MEGABYTE
    assert 0 < seen.lives_for <= look.lives_for + 60
    await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
    unread = store_backend.keys_of(key).fixed[2]
    assert await store_backend.redis("ZCARD", unread) == 1
    await store_backend.store.read(key)
    assert await store_backend.redis("ZCARD", unread) == 0


async def test_a_large_run_that_is_queued_again_shows_its_place(store_backend: Backend) -> None:
    key = RunKey("games", "large")
    claim = await store_backend.begin(key)
    await store_backend.queue.commit(claim.lease, [done("first", b"x" * MEGABYTE)], [])
    await store_backend.queue.release(claim.lease)
    seen = await store_backend.store.read(key)
    assert (seen.summary.status, seen.ahead) == (Status.PENDING, 0)


async def test_many_readers_of_large_runs_and_those_of_small_ones_are_all_answered(
    store_backend: Backend,
) -> None:
    store = RedisStore(
        store_backend.client(API),
        store_backend.rules(),
        budget=0.25,
        connections=API.connections,
        large=store_backend.client(LARGE),
    )
    large, small = RunKey("games", "large"), RunKey("games", "small")
    await ended(store_backend, large, b"x" * (12 * MEGABYTE))
    await ended(store_backend, small, b"y")
    readers = [asyncio.create_task(store.read(large)) for _ in range(READERS)]
    answered = 0
    while not all(reader.done() for reader in readers):
        assert (await store.read(small)).body == b"y"
        answered += 1
    assert {len((await reader).body) for reader in readers} == {12 * MEGABYTE}
    assert answered > READERS, "small reads do not wait for large ones"
    assert store.unreachable == 0
