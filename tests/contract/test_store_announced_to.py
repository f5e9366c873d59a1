"""Which processes a record names, after cut subscriptions, lost claims and many readers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from headstart_service.domain import (
    Awaits,
    EventKind,
    Reported,
    RunKey,
    Status,
    StepRecord,
    StepState,
    Withdrawal,
)
from headstart_service.store.connect import LARGE, Client
from headstart_service.store.events import subscription
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend, done, plan
from tests.contract.beside import KEY

PROCESSES = 500


async def named(backend: Backend, key: RunKey = KEY) -> list[str]:
    """The levels and processes of the record's field `to`."""
    found = await backend.redis("HGET", backend.keys_of(key).record(key), "to")
    return (found or b"").decode().split()


async def report_first(backend: Backend, run: str) -> None:
    record = StepRecord("first", StepState.COMPLETED, b"<first>")
    await backend.store.report(KEY, run, 1, "probe@v1", [], record)


async def test_a_worker_whose_subscription_was_cut_receives_what_is_announced_after_it(
    store_backend: Backend,
) -> None:
    run = (await store_backend.begin(KEY)).lease.job.run
    await report_first(store_backend, run)  # no worker is subscribed
    async with store_backend.queue.withdrawals() as withdrawals:
        await store_backend.store.cancel(KEY)
        async with asyncio.timeout(5):
            assert await anext(withdrawals) == Withdrawal(KEY, run)


async def test_a_worker_that_lost_a_run_to_another_still_receives_its_withdrawal(
    store_backend: Backend,
) -> None:
    run = (await store_backend.begin(KEY)).lease.job.run
    other = store_backend.new_queue(lease=0)
    [job] = await other.lost_jobs(store_backend.keys_of(KEY).partition, "w2", 1)
    assert await other.claim(job, "w2")
    async with AsyncExitStack() as stack:
        queues = (store_backend.queue, other)
        heard = [await stack.enter_async_context(queue.withdrawals()) for queue in queues]
        await report_first(store_backend, run)
        await store_backend.store.cancel(KEY)
        async with asyncio.timeout(5):
            for each in heard:
                assert await anext(each) == Reported(KEY, run, ("first",))
                assert await anext(each) == Withdrawal(KEY, run)


async def test_a_run_that_is_released_again_and_again_names_no_worker_that_has_left_it(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    for _ in range(5):
        queue = store_backend.new_queue()
        [job] = await store_backend.jobs()
        claim = await queue.claim(job, "w1")
        assert claim is not None
        assert len(await named(store_backend)) == 1
        await queue.release(claim.lease)
        assert await named(store_backend) == []


async def test_a_result_that_many_short_lived_processes_read_names_only_so_many(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY)
    live = store_backend.store
    keys = store_backend.keys_of(KEY)
    async with subscription(store_backend.blocking, live.channels) as heard:
        await live.read(KEY)
        for number in range(PROCESSES):
            await store_backend.scripts.read(
                keys, KEY, awaits=0, required="", by_need=0, process=f"{number:08x}", large=2**40
            )
        assert len(await named(store_backend)) <= 100
        await store_backend.store.start(KEY, plan("d2"), 60, restart=False)
        async with asyncio.timeout(5):
            assert (await anext(heard)).kind is EventKind.STARTED


@pytest.mark.parametrize(("size", "read"), [(1000, True), (100_000, False)])
async def test_an_end_counts_as_read_only_where_its_announcement_carries_the_result(
    store_backend: Backend, size: int, *, read: bool
) -> None:
    claim = await store_backend.begin(KEY)
    store = store_backend.store
    async with subscription(store_backend.blocking, store.channels) as heard:
        await store.read(KEY, awaits=Awaits.END)
        result = [done("first", b"x" * size)]
        await store_backend.queue.finish(claim.lease, result, Status.COMPLETED, "")
        async with asyncio.timeout(5):
            announcement = await anext(heard)
    assert (announcement.result is not None) is read
    assert (await store_backend.record(KEY))[b"seen"] == (b"1" if read else b"0")


@pytest.mark.parametrize("name", ["a key", "ключ", "a,b 1,2", "line\nbreak", "- -", "0"])
async def test_a_carried_result_is_that_of_its_key_whatever_its_name(
    store_backend: Backend, name: str
) -> None:
    key = RunKey("games", name)
    claim = await store_backend.begin(key)
    store = store_backend.store
    async with subscription(store_backend.blocking, store.channels) as heard:
        await store.read(key, awaits=Awaits.END)
        ended = [done("first", name.encode()), done("second", b"\x00 \xff,")]
        await store_backend.queue.finish(claim.lease, ended, Status.FAILED, f"why: {name}")
        async with asyncio.timeout(5):
            announcement = await anext(heard)
    assert announcement.key == key
    found, result = await store.read(key), announcement.result
    assert result is not None
    assert (result.summary, result.run, result.states) == (found.summary, found.run, found.states)
    assert result.body == name.encode() + b"\x00 \xff,"
    assert abs(result.lives_for - found.lives_for) < 10


async def test_the_end_of_a_damaged_record_is_announced_without_a_result(
    store_backend: Backend,
) -> None:
    store = store_backend.store
    for value in ({"s:\udcff": "C"}, {"s:first": ""}, {"s:first": "?"}):
        claim = await store_backend.begin(KEY)
        run = claim.lease.job.run
        async with subscription(store_backend.blocking, store.channels) as heard:
            await store.read(KEY, awaits=Awaits.END)
            for name, text in value.items():
                field = name.encode(errors="surrogateescape")
                await store_backend.redis(
                    "HSET", store_backend.keys_of(KEY).record(KEY), field, text
                )
            await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
            async with asyncio.timeout(5):
                announcement = await anext(heard)
        assert (announcement.kind, announcement.run) == (EventKind.ENDED, run)
        assert announcement.result is None
        await store_backend.redis("DEL", store_backend.keys_of(KEY).record(KEY))


class Restarting:
    """A client for large records before whose first answer their run is restarted."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._client = backend.client(LARGE)
        self._restarts = True

    async def execute_command(self, *command: Any) -> Any:
        if self._restarts:
            self._restarts = False
            await self._backend.store.start(KEY, plan(), 60, restart=True)
        return await self._client.execute_command(*command)


async def test_whoever_waits_for_a_large_run_that_is_restarted_meanwhile_is_named_in_the_new_one(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    ended = [done("first", b"x" * 1_000_000)]
    await store_backend.queue.finish(claim.lease, ended, Status.COMPLETED, "")
    store = RedisStore(
        store_backend.raw,
        store_backend.rules(),
        budget=10,
        connections=1,
        large=cast("Client", Restarting(store_backend)),
    )
    async with subscription(store_backend.blocking, store.channels) as heard:
        found = await store.read(KEY, awaits=Awaits.END)
        assert found.summary.status is Status.PENDING
        await store_backend.store.cancel(KEY)
        async with asyncio.timeout(5):
            kinds = [(await anext(heard)).kind, (await anext(heard)).kind]
    assert kinds == [EventKind.STARTED, EventKind.CANCELLED]
    await store.aclose()
