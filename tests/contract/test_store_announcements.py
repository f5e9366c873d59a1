from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from headstart_service.domain import (
    Announcement,
    Awaits,
    EventKind,
    Outcome,
    RunKey,
    Status,
    StepRecord,
    StepState,
    Withdrawal,
)
from headstart_service.store.connect import Client
from headstart_service.store.events import subscription
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend, Repeating, done, plan, running
from tests.support.waiting import wait_until


async def _heard_before(
    backend: Backend, heard: AsyncIterator[Announcement], marker: RunKey
) -> list[Announcement]:
    """What was announced until now: all that comes before the announcement of one more start."""
    await backend.start(marker)
    found = []
    async with asyncio.timeout(10):
        async for announcement in heard:
            if announcement.key == marker:
                break
            found.append(announcement)
    return found


async def test_each_transition_of_a_whole_life_is_announced_once_and_in_order(
    store_backend: Backend,
) -> None:
    key, marker = store_backend.neighbours(2)
    store, queue = store_backend.store, store_backend.queue
    expected = []

    def announces(kind: str, *steps: str, replaced: str = "") -> None:
        expected.append(Announcement(EventKind(kind), key, run, steps, replaced))

    async with store_backend.announcements() as heard:
        claim = await store_backend.begin(key)
        first = run = claim.lease.job.run
        announces("started")
        announces("claimed")
        await store_backend.start(key)  # joins: nothing has changed
        await queue.commit(claim.lease, [], [running("first")])
        announces("step")
        skipped = StepRecord("second", StepState.SKIPPED, b"")
        await queue.commit(claim.lease, [done("first"), skipped], [])
        announces("step", "first", "second")
        await queue.renew([claim.lease], "w1")
        await queue.release(claim.lease)
        announces("released")
        claim = await store_backend.claim("w2")
        announces("claimed")
        await queue.finish(claim.lease, [], Status.COMPLETED, "")
        announces("ended")
        await queue.finish(claim.lease, [], Status.COMPLETED, "")
        await store.read(key)
        await store_backend.start(key)  # reused: it lives longer than caches believe
        announces("dropped")
        await store_backend.start(key, plan("d2"))
        run = (await store.status(key)).run
        announces("started", replaced=first)
        await store.cancel(key)
        announces("cancelled")
        await store.cancel(key)
        assert await _heard_before(store_backend, heard, marker) == expected


async def test_a_run_given_up_is_announced_as_ended(store_backend: Backend) -> None:
    key, marker = store_backend.neighbours(2)
    at_once = store_backend.new_queue(lease=0)
    async with store_backend.announcements() as heard:
        await store_backend.begin(key)
        for worker in ("w2", "w3", "w4"):
            [job] = await at_once.lost_jobs(store_backend.keys_of(key).partition, worker, 1)
            await at_once.claim(job, worker)
        kinds = [a.kind for a in await _heard_before(store_backend, heard, marker)]
    assert kinds == ["started", "claimed", "claimed", "claimed", "ended"]


async def test_an_evicted_run_is_announced_as_dropped(store_backend: Backend) -> None:
    victim, newcomer, marker = store_backend.neighbours(3)
    await store_backend.complete(victim)
    smaller = store_backend.new_store(max_records=store_backend.partitions)
    async with store_backend.announcements() as heard:
        await smaller.start(newcomer, plan(), 60, restart=False)
        found = await _heard_before(store_backend, heard, marker)
        run = (await smaller.status(newcomer)).run
    assert found == [
        Announcement(EventKind.DROPPED, victim, ""),
        Announcement(EventKind.STARTED, newcomer, run),
    ]


async def test_every_partition_is_received_on_one_subscription(store_backend: Backend) -> None:
    keys = [RunKey("games", f"odd key: {number}") for number in range(30)]
    async with store_backend.announcements() as heard:
        for key in keys:
            await store_backend.start(key)
        found = set()
        async with asyncio.timeout(10):
            async for announcement in heard:
                found.add(announcement.key)
                if len(found) == len(keys):
                    break
    assert found == set(keys)
    assert {store_backend.keys_of(key).partition for key in keys} == set(
        range(store_backend.partitions)
    )


async def test_workers_receive_the_ids_of_their_runs_that_are_not_wanted_any_more(
    store_backend: Backend,
) -> None:
    key, of_another = store_backend.neighbours(2)
    async with store_backend.queue.withdrawals() as withdrawals:
        other = store_backend.new_queue()
        await store_backend.start(of_another)
        for job in await store_backend.jobs("w2"):
            assert await other.claim(job, "w2")
        await store_backend.store.cancel(of_another)
        first = (await store_backend.begin(key)).lease.job.run
        await store_backend.start(key, plan("d2"))
        second = (await store_backend.claim()).lease.job.run
        await store_backend.store.cancel(key)
        found = []
        async with asyncio.timeout(10):
            async for withdrawal in withdrawals:
                found.append(withdrawal)
                if len(found) == 2:
                    break
    assert found == [Withdrawal(key, first, replaced=True), Withdrawal(key, second)]
    assert await store_backend.redis("HGET", store_backend.keys_of(key).record(key), "to") is None


LIFE = ("claimed", "step", "ended", "dropped", "started")
"""What happens to a run in the test below, after somebody has read it."""


@pytest.mark.parametrize(
    ("awaits", "received"),
    [
        ((Awaits.NOTHING,), ()),
        ((Awaits.END,), ("ended", "dropped", "started")),
        ((Awaits.STEPS,), ("step", "ended", "dropped", "started")),
        ((Awaits.CHANGES,), LIFE),
        ((Awaits.END, Awaits.CHANGES, Awaits.STEPS), LIFE),
    ],
)
async def test_a_process_receives_what_its_callers_await_and_no_other_process_does(
    store_backend: Backend, awaits: tuple[Awaits, ...], received: tuple[str, ...]
) -> None:
    key, marker = store_backend.neighbours(2)
    store, other = store_backend.store, store_backend.new_store()
    async with (
        subscription(store_backend.blocking, store.channels) as heard,
        subscription(store_backend.blocking, other.channels) as elsewhere,
    ):
        await store_backend.start(key)
        for each in awaits:
            await store.read(key, awaits=each)
        claim = await store_backend.claim()
        await store_backend.queue.commit(claim.lease, [done("first")], [])
        await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
        await store_backend.start(key)  # reused
        await store_backend.start(key, plan("d2"))
        await store.cancel(key)  # of the new run, which nobody has read
        for reader in (store, other):
            await store_backend.start(marker, plan(f"d{id(reader)}"))
            await reader.read(marker, awaits=Awaits.END)
        await store.cancel(marker)  # the second run of the marker: `other` alone has read it
        found = [each async for each in _until(elsewhere, marker, EventKind.CANCELLED)]
        assert [each.key for each in found if each.kind is not EventKind.RESET] == []
        await store_backend.start(marker, plan("d3"))
        found = [each async for each in _until(heard, marker, EventKind.STARTED)]
    assert [str(each.kind) for each in found if each.key == key] == list(received)


async def _until(
    heard: AsyncIterator[Announcement], key: RunKey, kind: EventKind
) -> AsyncIterator[Announcement]:
    async with asyncio.timeout(10):
        async for announcement in heard:
            if (announcement.key, announcement.kind) == (key, kind):
                return
            yield announcement


async def test_who_has_read_an_ended_run_receives_what_outdates_it(store_backend: Backend) -> None:
    [key] = store_backend.neighbours(1)
    await store_backend.complete(key)
    record = store_backend.keys_of(key).record(key)
    readers = [store_backend.store, store_backend.new_store()]
    await readers[1].read(key)
    once = await store_backend.redis("HGET", record, "to")
    await readers[1].read(key)
    assert await store_backend.redis("HGET", record, "to") == once, "it is noted once"
    async with (
        subscription(store_backend.blocking, readers[0].channels) as first,
        subscription(store_backend.blocking, readers[1].channels) as second,
    ):
        await readers[0].read(key)
        await store_backend.store.start(key, plan(), 60, restart=True)
        for heard in (first, second):
            async with asyncio.timeout(10):
                assert (await anext(heard)).kind is EventKind.STARTED


async def test_a_process_that_has_ended_is_sent_nothing_more(store_backend: Backend) -> None:
    [key] = store_backend.neighbours(1)
    gone, other = store_backend.store, store_backend.new_store()
    async with subscription(store_backend.blocking, other.channels):
        await store_backend.start(key)
        for reader in (gone, other):
            await reader.read(key, awaits=Awaits.CHANGES)
        claim = await store_backend.claim()
        record = store_backend.keys_of(key).record(key)
        left = await store_backend.redis("HGET", record, "to")
        [mine] = [c.rpartition(":")[2] for c in other.channels[:1]]
        assert left.startswith(f" 3{mine} ".encode()), "and its worker"
        await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
        assert await store_backend.redis("HGET", record, "to") == f" 3{mine}".encode()


async def test_a_store_that_was_emptied_is_announced_to_every_process(
    store_backend: Backend,
) -> None:
    """Its records are gone, and with them who keeps their answers."""
    [key] = store_backend.neighbours(1)
    await store_backend.complete(key)
    other = store_backend.new_store()
    async with subscription(store_backend.blocking, other.channels) as heard:
        await other.read(key)
        store_backend.deployment.wipe()
        await store_backend.start(key)
        async with asyncio.timeout(10):
            assert (await anext(heard)).kind is EventKind.RESET


async def test_no_two_starts_of_a_key_have_one_id_whatever_the_store_has_lost(
    store_backend: Backend,
) -> None:
    """Neither a flush, which repeats revisions and may repeat stream ids, nor a damaged record."""
    [key] = store_backend.neighbours(1)
    runs = []
    async with store_backend.announcements() as heard:
        for _ in range(3):
            await store_backend.start(key)
            runs.append(await anext(heard))
            store_backend.deployment.wipe()
        await store_backend.start(key)
        runs.append(await anext(heard))
        await store_backend.redis("HSET", store_backend.keys_of(key).record(key), "about", "damage")
        started = await store_backend.store.start(key, plan(), 60, restart=True)
        assert started.revision == 1
        runs.append(await anext(heard))
    assert len({announcement.run for announcement in runs}) == 5
    assert {announcement.replaced for announcement in runs} == {""}, "nothing is known of those"
    assert {len(announcement.run) for announcement in runs} == {12}


async def test_a_start_that_is_repeated_is_one_start(
    store_backend: Backend,
) -> None:
    """The client sends it again when the connection breaks before the reply."""
    key, marker = store_backend.neighbours(2)
    await store_backend.begin(key)
    client = cast("Client", Repeating(store_backend.raw, 2))
    store = RedisStore(client, store_backend.rules(), budget=10, connections=1)
    async with store_backend.announcements() as heard:
        started = await store.start(key, plan(), 60, restart=True)
        assert (started.outcome, started.revision) == (Outcome.STARTED, 2)
        [announcement] = await _heard_before(store_backend, heard, marker)
    assert announcement.run == (await store_backend.store.status(key)).run


async def test_a_closed_subscription_leaves_no_connection_behind(store_backend: Backend) -> None:
    def subscribed() -> int:
        return store_backend.deployment.info("clients", "pubsub_clients")

    before = subscribed()  # a sentinel and a replica listen, too
    for number in range(5):
        async with store_backend.announcements() as heard:
            await store_backend.start(RunKey("games", "game-1"), plan(f"{number}"))
            assert subscribed() > before
            await anext(heard)
    await wait_until(lambda: subscribed() == before)


async def test_what_others_publish_on_the_channel_does_no_harm(store_backend: Backend) -> None:
    key = store_backend.neighbours(1)[0]
    channel = store_backend.keys_of(key).events
    async with store_backend.announcements() as heard:
        for rubbish in (b"", b"\xff\xfe", b"step one first", b"started run-1 nothing"):
            await store_backend.redis("SPUBLISH", channel, rubbish)
        assert await _heard_before(store_backend, heard, key) == []
