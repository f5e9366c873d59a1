"""Runs of megabytes: read whole, and at the expense of nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headstart_service.domain import Lack, RunKey, Snapshot, Status
from headstart_service.domain.errors import RunNotFound
from headstart_service.store.connect import API, LARGE, Client
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_observer import Unwatched
from tests.contract.backend import Backend, done, running
from tests.support.virtual_time import Clock

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
    look = (await store_backend.store.inspect(key)).snapshot
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


class Trips(Unwatched):
    """How many replies each trip of a command brought."""

    def __init__(self) -> None:
        self.of: dict[str, list[int]] = {}

    def trip(self, command: str, calls: int, seconds: float) -> None:
        self.of.setdefault(command, []).append(calls)


async def test_a_trip_brings_some_megabyte_and_records_above_a_quarter_come_by_themselves(
    store_backend: Backend,
) -> None:
    trips = Trips()
    rules = store_backend.rules()
    store = RedisStore(store_backend.client(API), rules, budget=30, connections=1, observer=trips)
    key, other = store_backend.neighbours(2)
    await ended(store_backend, key, b"x" * 200_000)
    await ended(store_backend, other, b"y" * 270_000)
    for _ in range(2):
        found = await asyncio.gather(*(store.read(key) for _ in range(33)))
        assert {len(each.body) for each in found} == {200_000}
    assert sum(trips.of["read"]) == 66
    assert max(trips.of["read"]) == 6, "the sixth goes beyond a megabyte, and is the last"
    assert "HGETALL" not in trips.of
    assert len((await store.read(other)).body) == 270_000
    assert trips.of["HGETALL"] == [1]
    await store.aclose()


class Changing:
    """A client for large records before whose answer something happens."""

    def __init__(self, client: Client, change: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._change = change

    async def execute_command(self, *command: Any) -> Any:
        await self._change()
        return await self._client.execute_command(*command)


async def test_a_large_run_that_changes_while_it_is_read_is_shown_as_it_is_then(
    store_backend: Backend,
) -> None:
    key = RunKey("games", "large")
    claim = await store_backend.begin(key)
    await store_backend.queue.commit(claim.lease, [done("first", b"x" * MEGABYTE)], [])
    await store_backend.queue.release(claim.lease)
    clock = Clock()

    async def read(change: Callable[[], Awaitable[object]]) -> Snapshot:
        store = RedisStore(
            store_backend.client(API),
            store_backend.rules(),
            budget=10,
            connections=1,
            large=Changing(store_backend.client(LARGE), change),  # type: ignore[arg-type]
            clock=clock,
        )
        found = await store.read(key)
        await store.aclose()
        return found

    async def slow() -> None:
        clock.now += 100

    seen = await read(slow)
    assert (seen.summary.status, seen.ahead, seen.summary.lacks) == (
        Status.PENDING,
        0,
        Lack.WORKER,
    )
    assert 1690 < seen.lives_for <= 1700
    seen = await read(store_backend.claim)
    assert (seen.summary.status, seen.ahead, seen.summary.lacks) == (
        Status.IN_PROGRESS,
        None,
        None,
    )
    seen = await read(lambda: store_backend.store.cancel(key))
    assert seen.summary.status is Status.CANCELLED
    assert 50 < seen.lives_for <= 61
    record = store_backend.keys_of(key).record(key)
    with pytest.raises(RunNotFound):
        await read(lambda: store_backend.redis("DEL", record))
