"""API processes, the embedded Valkey and whole services are killed; replicas roll: nobody notices."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from headstart import PrecomputeClient, PrecomputeStatus, ServiceUnavailable
from tests.support.consistency import inconsistencies
from tests.support.load import Load, serves
from tests.support.processes import Process, address_of, alive, children, health, run_headstart
from tests.support.rig import FAULTS, SETTINGS, Fleet
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.chaos

WAITERS = 1000
KEYS = 10
SEEN_AGAIN = 3.0
"""Seconds for which a replica must have been ready before the next may go: clients look for it once
a second. In Kubernetes that is minReadySeconds."""


class Replica:
    """An API process that keeps its port over restarts."""

    def __init__(self, redis_url: str, **environment: str) -> None:
        self.port = free_port()
        own = {"HEADSTART_REDIS_URL": redis_url, "HEADSTART_HTTP_PORT": "0"}
        own["HEADSTART_GRPC_PORT"] = str(self.port)
        self._environment = SETTINGS | own | environment
        self.process: Process | None = None

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    async def start(self) -> None:
        self.process = run_headstart("serve", "--no-worker", **self._environment)
        await address_of(self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


def _addresses(replicas: list[Replica]) -> str:
    return "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)


class Waiters:
    """Callers that wait for whatever happens to the process that they ask."""

    def __init__(self, clients: list[PrecomputeClient]) -> None:
        self._clients = clients
        self.refused = 0

    async def gather(self, keys: list[str], directory: Path) -> list[asyncio.Task[object]]:
        """A thousand of them, each waiting for one of these runs, which end when `go` exists."""
        for number, key in enumerate(keys):
            inputs = {"directory": str(directory), "value": number}
            await _persistently(self._clients[0], key, inputs)
        return [
            asyncio.create_task(self._wait(self._clients[n % len(self._clients)], keys[n % KEYS]))
            for n in range(WAITERS)
        ]

    async def _wait(self, client: PrecomputeClient, key: str) -> object:
        while True:
            try:
                results = await client.get_results(key, wait=30, timeout=30)
            except ServiceUnavailable:
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                assert results.status is PrecomputeStatus.COMPLETED, results
                return results.custom


async def test_a_killed_api_process_with_a_thousand_waiters(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    replicas = [Replica(valkey.url) for _ in range(2)]
    fleet = Fleet(valkey.url, 1)
    async with AsyncExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.stop)
        await asyncio.gather(*(replica.start() for replica in replicas))
        await stack.enter_async_context(fleet.working())
        # Retries are the caller's here, so that each failure is seen.
        clients = [
            PrecomputeClient(_addresses(replicas), timeout=PATIENT, max_attempts=1)
            for _ in range(4)
        ]
        for client in clients:
            await stack.enter_async_context(client)
        waiters = Waiters(clients)
        for kill in range(FAULTS):
            directory = tmp_path / str(kill)
            directory.mkdir()
            keys = [f"k{kill}-{number}" for number in range(KEYS)]
            waiting = await waiters.gather(keys, directory)
            await asyncio.sleep(chance.uniform(0, 1.5))  # the moment of the kill is the test
            victim = chance.choice(replicas)
            victim.running.kill()
            victim.stop()
            if chance.random() < 0.5:  # before the process is back, or after
                (directory / "go").touch()
            await victim.start()
            (directory / "go").touch()
            for n, answer in enumerate(await asyncio.wait_for(asyncio.gather(*waiting), 90)):
                assert answer == {"first": n % KEYS + 1, "gated": (n % KEYS + 1) * 10}
    print(f"{FAULTS * WAITERS} waiters answered, after {waiters.refused} times UNAVAILABLE")
    assert waiters.refused > 0
    assert inconsistencies([valkey.url]) == []


async def _persistently(client: PrecomputeClient, key: str, inputs: dict[str, object]) -> None:
    while True:
        try:
            await client.start(key, "probe", inputs)  # type: ignore[arg-type]
        except ServiceUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_killed_embedded_valkey_is_started_again_and_has_kept_everything(
    tmp_path: Path, chance: random.Random
):
    settings = SETTINGS | {"HEADSTART_DATA_DIR": str(tmp_path), "HEADSTART_HTTP_PORT": "0"}
    process = run_headstart("serve", HEADSTART_GRPC_PORT="0", **settings)
    try:
        async with PrecomputeClient(await address_of(process), timeout=PATIENT) as client:
            load = Load(client, "embedded")
            async with load.running(8, pause=0.1):
                for _ in range(FAULTS):
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    old = _valkey_of(process)
                    os.kill(old, signal.SIGKILL)
                    await wait_until(lambda old=old: _valkey_of(process, but=old))
                    await serves(client)
            assert not load.verdict.bad, load.verdict.bad
            for number in range(load.numbers):  # those that ended long before a kill, too
                await load.see_to_end(number)
            assert not load.verdict.bad, load.verdict.bad
            assert load.verdict.right == 2 * load.numbers
            assert inconsistencies([f"unix://{tmp_path}/valkey.sock"]) == []
    finally:
        process.stop()


def _valkey_of(process: Process, but: int = 0) -> int:
    found = [p for p, command in children(process.pid).items() if b"valkey" in command]
    return next((pid for pid in found if pid != but), 0)


async def test_a_killed_serve_leaves_nothing_behind_and_its_successor_goes_on(
    tmp_path: Path, chance: random.Random
):
    port = free_port()
    settings = SETTINGS | {"HEADSTART_DATA_DIR": str(tmp_path), "HEADSTART_HTTP_PORT": "0"}
    process = run_headstart("serve", HEADSTART_GRPC_PORT=str(port), **settings)
    try:
        async with PrecomputeClient(f"127.0.0.1:{port}", timeout=PATIENT) as client:
            await address_of(process)
            load = Load(client, "serve")
            async with load.running(6, pause=0.1):
                for fault in range(FAULTS):
                    await serves(client)  # it may be up to a second late to connect again
                    if fault % 2 == 0:
                        # A third loss of its only worker fails a run, and rightly so.
                        hit = set(load.under_way)
                        await wait_until(lambda hit=hit: not hit & load.under_way)
                    await asyncio.sleep(chance.uniform(0, 1.0))
                    left = children(process.pid)
                    assert len(left) == 2  # Valkey and the worker
                    process.kill()
                    process.stop()
                    await wait_until(lambda left=left: not any(alive(pid) for pid in left))
                    process = run_headstart("serve", HEADSTART_GRPC_PORT=str(port), **settings)
                    await address_of(process)
            assert not load.verdict.bad, load.verdict.bad
            assert (await client.get_stats()).queued_jobs == 0
    finally:
        process.stop()


async def test_replicas_and_workers_that_are_replaced_one_by_one_fail_no_call(
    valkey: Valkey, chance: random.Random
):
    replicas = [Replica(valkey.url) for _ in range(2)]
    fleet = Fleet(valkey.url, 2, HEADSTART_DRAIN="1")
    async with AsyncExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.stop)
        await asyncio.gather(*(replica.start() for replica in replicas))
        await stack.enter_async_context(fleet.working())
        client = await stack.enter_async_context(
            PrecomputeClient(_addresses(replicas), timeout=PATIENT)
        )
        async with valkey.client() as redis:  # a slow disk is another fault, and is told as one
            await redis.config_set("appendfsync", "no")
        load = Load(client, "rolling")
        async with load.running(12, pause=0.05):
            for _ in range(FAULTS // 4):
                for replica in replicas:
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    replica.running.send(signal.SIGTERM)
                    assert await replica.running.ended() == 0
                    replica.stop()
                    await replica.start()
                    assert await health(f"127.0.0.1:{replica.port}") == "SERVING"
                    await asyncio.sleep(SEEN_AGAIN)
                for place in range(2):
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    leaver = fleet.workers[place]
                    leaver.send(signal.SIGTERM)
                    await wait_until(lambda o=leaver, p=place: fleet.workers[p] is not o)
                    await fleet.workers[place].says("headstart worker ready")
        assert load.verdict.failed_calls == 0, load.verdict.told
    assert not load.verdict.bad, load.verdict.bad
    assert inconsistencies([valkey.url]) == []
