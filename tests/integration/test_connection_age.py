"""Connections and watches end at an age, so that a new replica has its share, and no call fails."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from headstart import BlockingClient, PrecomputeClient, Results
from tests.support.balancer import balancer
from tests.support.processes import worker
from tests.support.replicas import LIGHT, Replica, Replicas
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

AGE = 0.7
AGED = {"HEADSTART_MAX_CONNECTION_AGE": str(AGE)}
AGES = 6
"""Ages that the tests' calls go on for."""


@pytest.fixture
async def replicas(valkey: Valkey) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(worker(valkey.url, **LIGHT))
        yield Replicas(valkey.url, stack)


async def http_of(replica: Replica) -> str:
    port = (await replica.process.says(r"HTTP on \S+:(\d+)"))[1]
    return f"http://127.0.0.1:{port}"


async def test_a_replica_that_is_added_has_its_share_of_calls_after_one_age(replicas: Replicas):
    first = await replicas.add(**AGED)
    async with balancer(int(first.port)) as entry, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(PrecomputeClient(f"127.0.0.1:{entry.port}"))
            for _ in range(8)
        ]
        served: Counter[int] = Counter()
        over = False

        async def calls(client: PrecomputeClient) -> None:
            while not over:
                served[(await client.get_stats()).max_cached] += 1
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(calls(client))
            await wait_until(lambda: served[first.mark] > 500)
            second = await replicas.add(**AGED)
            entry.targets.append(int(second.port))
            before = len(entry.made)
            # Each client has connected again, some more than once.
            await wait_until(lambda: len(entry.made) >= before + 2 * len(clients))
            served.clear()
            await wait_until(lambda: served.total() > 2000)
            over = True
    assert served[second.mark] > 0.25 * served.total(), served
    assert served[first.mark] > 0.25 * served.total(), served


async def test_calls_waits_and_watches_across_ages_lose_and_double_nothing(
    replicas: Replicas, tmp_path: Path
):
    server = await replicas.add(**AGED)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(PrecomputeClient(server.address))
        blocking = BlockingClient(server.address)
        stack.callback(blocking.close)
        inputs = {"directory": str(tmp_path), "value": 1}
        await client.start("long", "probe", inputs)
        until = time.monotonic() + AGES * AGE
        answered = 0

        async def calls() -> None:
            nonlocal answered
            while time.monotonic() < until:
                await client.get_status("long")
                answered += 1

        def blocking_calls() -> int:
            made = 0
            while time.monotonic() < until:
                blocking.get_status("long")
                made += 1
            return made

        async def watched() -> list[Results]:
            return [state async for state in client.watch_results("long")]

        def watched_by_a_thread() -> list[Results]:
            return list(blocking.watch_results("long"))

        async def watched_many() -> list[Results]:
            found = [state async for _, state in client.watch_many(["long"])]
            return [state for state in found if isinstance(state, Results)]

        watches = [
            asyncio.create_task(watched()),
            asyncio.create_task(asyncio.to_thread(watched_by_a_thread)),
            asyncio.create_task(watched_many()),
        ]
        waiting = asyncio.create_task(client.get_results("long", wait=60))
        await asyncio.gather(*[calls() for _ in range(16)], asyncio.to_thread(blocking_calls))
        assert not any(task.done() for task in (*watches, waiting)), "none ended with a connection"
        (tmp_path / "go").touch()
        assert (await waiting).status.ended
        seen, by_thread, many = await asyncio.gather(*watches)
    assert answered > 1000
    for states in (seen, by_thread, many):
        assert states[-1].status.ended
        assert all(one != other for one, other in itertools.pairwise(states))
        assert sum(state.status.ended for state in states) == 1


async def test_an_old_http_connection_is_closed_with_its_answer(replicas: Replicas):
    server = await replicas.add(**AGED)
    base = await http_of(server)
    url = f"{base}/headstart.v1.PrecomputeService/GetStats"
    async with httpx2.AsyncClient() as http:
        closed: list[bool] = []

        async def last_of_its_connection() -> bool:
            response = await http.post(url, json={})
            assert response.status_code == 200
            closed.append(response.headers.get("connection") == "close")
            return closed[-1]

        await wait_until(last_of_its_connection)
        assert not await last_of_its_connection(), "the next request has a new connection"
    assert len(closed) > 2


async def test_without_an_age_a_connection_stays(replicas: Replicas):
    server = await replicas.add(HEADSTART_MAX_CONNECTION_AGE="0")
    async with balancer(int(server.port)) as entry:
        async with PrecomputeClient(f"127.0.0.1:{entry.port}") as client:
            until = time.monotonic() + 2 * AGE
            while time.monotonic() < until:
                await client.get_stats()
        assert len(entry.made) == 1
