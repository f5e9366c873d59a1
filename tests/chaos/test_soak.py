"""A service under load and faults for as long as one likes: nothing that it uses grows."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from headstart import PrecomputeClient
from tests.support.census import DIRECTORY, tasks_of
from tests.support.load import Load, serves
from tests.support.processes import Process, api, worker
from tests.support.proxy import Proxy, proxy
from tests.support.rig import SETTINGS, Fleet
from tests.support.soak import Gauges
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.chaos

SECONDS = float(os.environ.get("HEADSTART_SOAK_SECONDS") or 30)
PLACES = 16
CALLERS = round(0.7 * 2 * PLACES)
"""Each holds a place of the two workers nearly all the time: that is their load of 70 %."""
CALM = 1.5
"""Seconds between two faults, on average."""

SPARE = 2
"""How many tasks more an idle process may have than at the beginning: its upkeep comes and goes."""


async def test_what_a_service_uses_does_not_grow(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    settings = SETTINGS | {
        "HEADSTART_WORKER_CONCURRENCY": str(PLACES),
        "HEADSTART_WORKER_RUNS": str(PLACES),
        "HEADSTART_RESULT_TTL": "4",
        "HEADSTART_FAILURE_TTL": "4",
        "HEADSTART_PIPELINES": SETTINGS["HEADSTART_PIPELINES"].replace(
            "pipelines:NOOP", "census:CENSUS"
        ),
        DIRECTORY: str(tmp_path),
    }
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(proxy(valkey.port))
        url = f"redis://127.0.0.1:{between.port}"
        server, address = await stack.enter_async_context(api(url, **settings))
        steady = await stack.enter_async_context(worker(url, **settings))
        fleet = Fleet(url, 1, **settings)
        await stack.enter_async_context(fleet.working())
        client = await stack.enter_async_context(PrecomputeClient(address, timeout=PATIENT))
        redis = await stack.enter_async_context(valkey.client())
        assert valkey.process is not None
        pids = {"api": server.pid, "worker": steady.pid, "valkey": valkey.process.pid}
        idle = {name: await tasks_of(pids[name], tmp_path) for name in ("api", "worker")}
        gauges = Gauges(pids)
        sampling = asyncio.create_task(gauges.sample(redis))
        # A caller that was away for as long as results live starts its run again.
        load = Load(client, "soak", forgets=True)
        async with load.running(CALLERS):
            faults = Faults(valkey, between, redis, steady, fleet, chance)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                await faults.strike()
                await serves(client)
                await asyncio.sleep(chance.uniform(0, 2 * CALM))
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling

        async def none_is_left_over() -> bool:
            now = {name: await tasks_of(pids[name], tmp_path) for name in idle}
            return all(now[name] <= idle[name] + SPARE for name in idle)

        # How many tasks there are under load is chance, so they are counted without it.
        await wait_until(none_is_left_over)
        changes = gauges.changes()
        print(f"{SECONDS:g} s, {faults.struck} faults; {load.verdict}")
        print("\n".join(map(str, changes)))
        assert not load.verdict.bad, load.verdict.bad[:5]
        assert not [str(change) for change in changes if change.grows]


class Faults:
    """Every fault that leaves the processes which are measured alive."""

    def __init__(
        self,
        valkey: Valkey,
        between: Proxy,
        redis: Redis,
        steady: Process,
        fleet: Fleet,
        chance: random.Random,
    ) -> None:
        self._valkey = valkey
        self._between = between
        self._redis = redis
        self._steady = steady
        self._fleet = fleet
        self._chance = chance
        self.struck = 0

    async def strike(self) -> None:
        """One of them, by chance."""
        self.struck += 1
        await self._chance.choice(
            (
                self._redis.script_flush,
                self._cut,
                self._cut_one,
                self._deaf,
                self._kill_a_worker,
                self._stop_the_other,
                self._stop_redis,
            )
        )()

    async def _cut(self) -> None:
        self._between.cut()

    async def _cut_one(self) -> None:
        self._between.cut_next(b"EVALSHA", in_reply=self._chance.random() < 0.5)

    async def _deaf(self) -> None:
        await self._redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _kill_a_worker(self) -> None:
        self._fleet.workers[0].kill()

    async def _stop_the_other(self) -> None:
        self._steady.send(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        self._steady.send(signal.SIGCONT)

    async def _stop_redis(self) -> None:
        assert self._valkey.process is not None
        self._valkey.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1)
        self._valkey.process.send_signal(signal.SIGCONT)
