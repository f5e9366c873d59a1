"""Deleting a run, and letting it live longer."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import Announcement, Awaits, EventKind, Status, Withdrawal
from headstart_service.domain.errors import LeaseLost, RunNotFound
from headstart_service.store.events import subscription
from tests.contract.backend import TTL, Backend, done, plan
from tests.contract.beside import beside

SECOND = 1_000_000


async def test_a_deleted_run_leaves_nothing_behind(store_backend: Backend) -> None:
    """Whatever its state: queued, running, ended or damaged."""
    queued, running, ended, damaged = store_backend.neighbours(4)
    keys = store_backend.keys_of(queued)
    await store_backend.complete(ended)
    claim = await store_backend.begin(running)
    await store_backend.start(queued)
    await store_backend.start(damaged)
    await store_backend.redis("HSET", keys.record(damaged), "about", "damage")
    for key in (queued, running, ended, damaged):
        assert await store_backend.store.delete(key)
        assert not await store_backend.store.delete(key), "a repetition"
        assert await store_backend.redis("EXISTS", keys.record(key)) == 0
    for name in ("expiry", "unread", "read", "waiting", "tickets", "unsettled"):
        assert await store_backend.redis("EXISTS", beside(keys, name)) == 0, name
    for status in Status:
        assert await store_backend.redis("EXISTS", beside(keys, f"status:{status}")) == 0
    with pytest.raises(LeaseLost):
        await store_backend.queue.commit(claim.lease, [done("first")], [])
    assert (await store_backend.store.stats("")).counts == {}


async def test_a_deletion_spares_another_revision(store_backend: Backend) -> None:
    [key] = store_backend.neighbours(1)
    await store_backend.start(key)
    await store_backend.start(key, plan("d2"))
    assert not await store_backend.store.delete(key, 1)
    assert await store_backend.store.delete(key, 2)


async def test_a_deletion_is_announced_to_readers_and_to_the_worker(
    store_backend: Backend,
) -> None:
    [key] = store_backend.neighbours(1)
    other = store_backend.new_store()
    async with (
        subscription(store_backend.blocking, other.channels) as heard,
        store_backend.queue.withdrawals() as withdrawals,
        asyncio.timeout(10),
    ):
        run = (await store_backend.begin(key)).lease.job.run
        await other.read(key, awaits=Awaits.END)
        await store_backend.store.delete(key)
        found = [each async for each in _first(heard, 2)]
        assert found[-1] == Announcement(EventKind.DROPPED, key, run)
        assert await anext(withdrawals) == Withdrawal(key, run)


async def _first(heard, number):  # type: ignore[no-untyped-def]
    """Up to `number` announcements, until the first that is about a run."""
    async for announcement in heard:
        yield announcement
        if announcement.kind is not EventKind.RESET:
            return


async def test_a_touched_run_that_has_not_ended_lives_longer_after_its_end(
    store_backend: Backend,
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await store_backend.begin(key, ttl=10)
    await store_backend.store.touch(key, TTL)
    await store_backend.store.touch(key, 1)
    await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
    snapshot = await store_backend.store.read(key)
    assert TTL - 20 < snapshot.lives_for <= TTL


async def test_a_touched_run_that_has_ended_lives_longer_from_then_on(
    store_backend: Backend,
) -> None:
    key, other = store_backend.neighbours(2)
    await store_backend.complete(key, ttl=100)
    before = (await store_backend.store.status(key)).summary.expires_us
    async with subscription(store_backend.blocking, store_backend.store.channels) as heard:
        await store_backend.store.read(key)
        shorter = await store_backend.store.touch(key, 5)
        assert shorter.expires_us == before
        touched = await store_backend.store.touch(key, 500, 1)
        assert 390 * SECOND < touched.expires_us - before < 410 * SECOND
        assert (touched.status, touched.revision) == (Status.COMPLETED, 1)
        async with asyncio.timeout(10):
            found = [each.kind async for each in _first(heard, 1)]
        assert found[-1] is EventKind.DROPPED, "what others keep of it says when it expires"
    assert (await store_backend.store.status(key)).summary.expires_us == touched.expires_us
    for unknown, revision in ((key, 2), (other, 0)):
        with pytest.raises(RunNotFound):
            await store_backend.store.touch(unknown, 5, revision)
