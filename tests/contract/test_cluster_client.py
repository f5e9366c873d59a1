"""What a cluster's client spares its callers: detours, and cuts of connections that others wait on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import RedisCluster

from headstart_service.domain import RunKey
from tests.contract.backend import Backend
from tests.support.deployments import Deployment, eventually
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("deployment", ["cluster-4"], indirect=True)

KEY = RunKey("games", "game-1")
MOVES = 12
"""So many MOVED, of which redis-py by default answers every fifth with closing all connections; a
multiple of the masters' number, so that the slot is at home again."""


async def test_the_first_commands_of_a_client_go_to_the_right_node(store_backend: Backend) -> None:
    queue, deployment = store_backend.queue, store_backend.deployment
    async with Backend.open(deployment, store_backend.partitions) as other:
        await other.queue.prepare_queue()
    before = _count(deployment, "errorstats", "errorstat_MOVED", "count")
    partitions = list(range(store_backend.partitions)) * 5
    await asyncio.gather(*(queue.next_jobs(partition, "w1", 1, 0) for partition in partitions))
    await asyncio.gather(*(queue.lost_jobs(partition, "w1", 1) for partition in partitions))
    assert _count(deployment, "errorstats", "errorstat_MOVED", "count") == before


async def test_no_node_is_asked_where_a_stream_is(store_backend: Backend) -> None:
    before = _count(store_backend.deployment, "commandstats", "cmdstat_command|getkeys", "calls")
    await store_backend.start(KEY)
    assert len(await store_backend.jobs()) == 1
    for partition in range(store_backend.partitions):
        await store_backend.queue.lost_jobs(partition, "w1", 1)
    after = _count(store_backend.deployment, "commandstats", "cmdstat_command|getkeys", "calls")
    assert after == before


async def test_a_slot_that_moves_is_followed_and_cuts_nobody_who_waits_on_another(
    store_backend: Backend,
) -> None:
    queue, deployment = store_backend.queue, store_backend.deployment
    client = store_backend.blocking
    assert isinstance(client, RedisCluster)
    await queue.prepare_queue()
    waiting = asyncio.create_task(
        queue.next_jobs(store_backend.keys_of(KEY).partition, "w1", 1, 20)
    )
    await wait_until(lambda: deployment.info("clients", "blocked_clients"))
    for _ in range(MOVES):
        before = _count(deployment, "errorstats", "errorstat_MOVED", "count")
        await asyncio.to_thread(_pass_on, deployment, client.keyslot("moves"))
        assert await client.exists("moves") == 0
        assert _count(deployment, "errorstats", "errorstat_MOVED", "count") > before
        assert not waiting.done()
    await store_backend.start(KEY)
    [job] = await waiting
    assert job.key == KEY


def _count(deployment: Deployment, section: str, name: str, figure: str) -> int:
    """A figure that all servers together report."""
    total = 0
    for url in deployment.masters:
        with Redis.from_url(url, protocol=2) as client:
            total += client.info(section).get(name, {}).get(figure, 0)
    return total


def _pass_on(deployment: Deployment, slot: int) -> None:
    """Give an empty slot to the next master."""
    urls = deployment.masters
    source = next(n for n, url in enumerate(urls) if _owner(url, slot) == url)
    target = (source + 1) % len(urls)
    ids = [str(_ask(url, "CLUSTER MYID").decode()) for url in urls]
    _ask(urls[target], "CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
    _ask(urls[source], "CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
    for number in (target, source, *range(len(urls))):
        _ask(urls[number], "CLUSTER SETSLOT", slot, "NODE", ids[target])
    eventually(lambda: all(_owner(url, slot) == urls[target] for url in urls))


def _owner(url: str, slot: int) -> str:
    """The URL of the master that has a slot, as the one of this URL knows it."""
    for first, last, (_, port, *_), *_ in _ask(url, "CLUSTER SLOTS"):
        if first <= slot <= last:
            return f"redis://127.0.0.1:{port}"
    return ""


def _ask(url: str, *command: str | int) -> Any:
    with Redis.from_url(url, protocol=2) as client:
        return client.execute_command(*command)
