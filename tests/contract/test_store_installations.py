"""Installations that share a Redis: by a prefix of their own, or in databases of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from headstart_service.domain import Announcement, EventKind, RunKey, Status, Withdrawal
from headstart_service.store.connect import WORKER
from headstart_service.store.diagnostics import examine
from tests.contract.backend import RESULT, Backend, done, plan
from tests.support.deployments import Deployment

KEY = RunKey("games", "the same")


@pytest.fixture(params=["prefix", "database"])
async def second(request: pytest.FixtureRequest, store_backend: Backend) -> AsyncIterator[Backend]:
    """Another installation on the Redis of `store_backend`."""
    deployment, prefix = store_backend.deployment, "second"
    if request.param == "database":
        if "cluster" in deployment.url:
            pytest.skip("a cluster has one database")
        deployment, prefix = _in_database(deployment, 1), store_backend.prefix
    async with Backend.open(deployment, store_backend.partitions, prefix) as opened:
        yield opened
    store_backend.deployment.wipe()


def _in_database(deployment: Deployment, number: int) -> Deployment:
    joint = "&" if "?" in deployment.url else "?"
    return replace(deployment, url=f"{deployment.url}{joint}db={number}")


async def test_runs_of_one_key_in_two_installations_are_two(
    store_backend: Backend, second: Backend
) -> None:
    claim = await store_backend.begin(KEY)
    assert await second.find(KEY) is None
    await second.start(KEY, plan("d2"))
    await second.start(KEY, plan("d3"))
    [job] = [job for job in await second.jobs() if job.key == KEY][-1:]
    other = await second.queue.claim(job, "w1")
    assert other is not None
    await second.store.cancel(KEY)
    ended = [done("first"), done("second")]
    await store_backend.queue.finish(claim.lease, ended, Status.COMPLETED, "")
    found = await store_backend.store.read(KEY)
    assert (found.summary.status, found.summary.revision) == (Status.COMPLETED, 1)
    assert found.body == RESULT
    found = await second.store.read(KEY)
    assert (found.summary.status, found.summary.revision) == (Status.CANCELLED, 2)
    assert (await store_backend.store.stats("")).counts == {Status.COMPLETED: 1}
    assert (await second.store.stats("")).counts == {Status.CANCELLED: 1}


async def test_nothing_is_announced_to_another_installation(
    store_backend: Backend, second: Backend
) -> None:
    async with (
        store_backend.announcements() as first_heard,
        second.announcements() as second_heard,
        second.queue.withdrawals() as withdrawn,
        asyncio.timeout(10),
    ):
        await second.begin(KEY)
        mine = (await second.store.status(KEY)).run
        await store_backend.start(KEY)
        await store_backend.store.cancel(KEY)
        run = (await store_backend.store.status(KEY)).run
        assert [await anext(first_heard) for _ in range(2)] == [
            Announcement(EventKind.STARTED, KEY, run),
            Announcement(EventKind.CANCELLED, KEY, run),
        ]
        await second.store.cancel(KEY)
        assert [await anext(second_heard) for _ in range(3)] == [
            Announcement(EventKind.STARTED, KEY, mine),
            Announcement(EventKind.CLAIMED, KEY, mine),
            Announcement(EventKind.CANCELLED, KEY, mine),
        ]
        assert await anext(withdrawn) == Withdrawal(KEY, mine)


async def test_an_operator_sees_the_queue_and_the_workers_of_one_installation(
    store_backend: Backend, second: Backend
) -> None:
    await second.jobs("w1")
    await second.start(KEY)
    other = await examine(second.client(WORKER), second.rules(), recent=60)
    own = await examine(store_backend.client(WORKER), store_backend.rules(), recent=60)
    assert ((other.queued, other.workers), (own.queued, own.workers)) == ((1, 1), (0, 0))
