from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from headstart_service.domain import Announcement, RunKey, Status, StepRecord, StepState
from tests.contract.backend import Backend, done, plan, running
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

    def announces(kind: str, revision: int, *steps: str) -> None:
        expected.append(Announcement(kind, key, revision, steps))

    async with store_backend.announcements() as heard:
        claim = await store_backend.begin(key)
        announces("started", 1)
        announces("claimed", 1)
        await store_backend.start(key)  # joins: nothing has changed
        await queue.commit(claim.lease, [], [running("first")])
        announces("step", 1)
        skipped = StepRecord("second", StepState.SKIPPED, b"")
        await queue.commit(claim.lease, [done("first"), skipped], [])
        announces("step", 1, "first", "second")
        await queue.renew([claim.lease], "w1")
        await queue.release(claim.lease)
        announces("released", 1)
        claim = await store_backend.claim("w2")
        announces("claimed", 1)
        await queue.finish(claim.lease, [], Status.COMPLETED, "")
        announces("ended", 1)
        await queue.finish(claim.lease, [], Status.COMPLETED, "")
        await store.read(key)
        await store_backend.start(key)  # reused: it lives longer than caches believe
        announces("dropped", 1)
        await store_backend.start(key, plan("d2"))
        announces("started", 2)
        await store.cancel(key)
        announces("cancelled", 2)
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
    assert found == [
        Announcement("dropped", victim, 0, ()),
        Announcement("started", newcomer, 1, ()),
    ]


async def test_every_partition_is_heard_on_one_subscription(store_backend: Backend) -> None:
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


async def test_workers_hear_which_revisions_are_not_wanted_any_more(
    store_backend: Backend,
) -> None:
    key, _ = store_backend.neighbours(2)
    async with store_backend.queue.withdrawals() as withdrawals:
        await store_backend.begin(key)
        await store_backend.start(key, plan("d2"))
        await store_backend.store.cancel(key)
        found = []
        async with asyncio.timeout(10):
            async for withdrawal in withdrawals:
                found.append((withdrawal.key, withdrawal.revision, withdrawal.replaced))
                if len(found) == 3:
                    break
    assert found == [(key, 1, True), (key, 2, True), (key, 3, False)]


async def test_a_closed_subscription_leaves_no_connection_behind(store_backend: Backend) -> None:
    def subscribed() -> int:
        return store_backend.deployment.info("clients", "pubsub_clients")

    before = subscribed()  # a sentinel and a replica listen, too
    for number in range(5):
        async with store_backend.announcements() as heard:
            await store_backend.start(RunKey("games", "game-1"), plan(f"{number}"))
            assert subscribed() == before + 1
            await anext(heard)
    await wait_until(lambda: subscribed() == before)


async def test_what_others_publish_on_the_channel_does_no_harm(store_backend: Backend) -> None:
    key = store_backend.neighbours(1)[0]
    channel = store_backend.keys_of(key).events
    async with store_backend.announcements() as heard:
        for rubbish in (b"", b"\xff\xfe", b"step one first", b"started notanumber - a:b"):
            await store_backend.redis("PUBLISH", channel, rubbish)
        assert await _heard_before(store_backend, heard, key) == []
