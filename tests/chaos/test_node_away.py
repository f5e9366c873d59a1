"""A node of a cluster hangs: callers and workers of the other nodes' runs notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import RedisCluster

from headstart_service.api.deadline import Deadline
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import Waiting
from headstart_service.domain import Status, Withdrawal
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.pipeline.registry import Registry
from headstart_service.store.events import subscription
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend
from tests.support import deployments
from tests.support.deployments import Deployment
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

PARTITIONS = 4


@asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[tuple[Backend, Deployment]]:
    with deployments.cluster(directory) as cluster:
        for url in cluster.masters:
            with Redis.from_url(url, protocol=2) as node:
                # Else the others refuse every call, 15 seconds after one of them began to hang.
                node.config_set("cluster-require-full-coverage", "no")
        async with Backend.open(cluster, PARTITIONS, connect=0.5) as backend:
            # redis-py loads a script on all nodes, so it must know those of these tests before.
            [key] = backend.neighbours(1, name="first")
            await backend.complete(key)
            await backend.store.read(key)
            await backend.store.cancel(key)
            yield backend, cluster


def url_of(backend: Backend, partition: int) -> str:
    """The node that has a partition."""
    client = backend.raw
    assert isinstance(client, RedisCluster)
    node = client.get_node_from_key(backend.all_keys[partition].jobs)
    assert node is not None
    return f"redis://{node.host}:{node.port}"


def stop(url: str) -> int:
    """Stop the process of a node, and return its id."""
    with Redis.from_url(url, protocol=2) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    return process


def another(backend: Backend) -> str:
    """A node that has another partition than the first, whose layout every process reads."""
    return next(url for p in range(PARTITIONS) if (url := url_of(backend, p)) != url_of(backend, 0))


@asynccontextmanager
async def waiting_on(store: RedisStore, backend: Backend) -> AsyncIterator[ResultReader]:
    cache = NearCache(1_000_000, store.section)
    sections = [partial(subscription, backend.blocking, c, silence=0.3) for c in store.sections]
    waiting = Waiting(store, sections, cache, section=store.section)
    running = asyncio.create_task(waiting.run())
    await wait_until(lambda: waiting.receiving)
    reader = ResultReader(waiting, cache, Registry([]))
    yield reader
    running.cancel()
    await asyncio.wait({running})


async def test_a_waiter_of_another_nodes_run_gets_its_end_at_once(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as (backend, _):
        await backend.queue.prepare_queue()
        gone, [key] = another(backend), backend.neighbours(1)
        async with waiting_on(backend.store, backend) as reader:
            claim = await backend.begin(key)
            process = stop(gone)
            try:
                await asyncio.sleep(2)  # more than the silence after which its subscription is lost
                waiter = asyncio.create_task(reader.get(key, (), Deadline.of_call(8), 0))
                await asyncio.sleep(0.5)
                await backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
                async with asyncio.timeout(1):
                    await waiter
                assert reader.ready(key) is not None, "its result is kept"
            finally:
                os.kill(process, signal.SIGCONT)


async def test_a_worker_stops_another_nodes_run_at_once(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as (backend, _):
        gone, [key] = another(backend), backend.neighbours(1)
        run = (await backend.begin(key)).lease.job.run
        process = stop(gone)
        try:
            async with asyncio.timeout(60), AsyncExitStack() as stack:

                async def entered() -> AsyncIterator[object] | None:
                    """As a worker does, again until a node answers."""
                    with suppress(StoreUnavailable):
                        return await stack.enter_async_context(backend.queue.withdrawals())
                    return None

                withdrawals = await wait_until(entered)
                await backend.store.cancel(key)
                async with asyncio.timeout(1):
                    assert await anext(withdrawals) == Withdrawal(key, run)
        finally:
            os.kill(process, signal.SIGCONT)
