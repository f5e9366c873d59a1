"""A service in processes of its own, short leases and all, for tests that break it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from headstart import PrecomputeClient
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, run_headstart, worker
from tests.support.waiting import PATIENT

FAULTS = 20
"""How often each fault strikes."""
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_LEASE": "1.5",
    "HEADSTART_DRAIN": "5",
    "HEADSTART_WORKER_CONCURRENCY": "16",
    "HEADSTART_MAX_CACHED_RESULTS": "100000",
}


@dataclass
class Rig:
    """An API process, its workers and a client."""

    server: Process
    workers: list[Process]
    client: PrecomputeClient
    address: str


@asynccontextmanager
async def rig(redis_url: str, workers: int = 2, **environment: str) -> AsyncIterator[Rig]:
    """All of it while the context is open."""
    settings = SETTINGS | environment
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        async with asyncio.TaskGroup() as starting:
            served = starting.create_task(enter(api(redis_url, **settings)))
            working = [
                starting.create_task(enter(worker(redis_url, **settings))) for _ in range(workers)
            ]
        server, address = served.result()
        made = [each.result() for each in working]
        client = await enter(PrecomputeClient(address, timeout=PATIENT))
        try:
            yield Rig(server, made, client, address)
        finally:
            for process in (server, *made):  # all at once: each takes some seconds to stop
                if process.alive:
                    process.send(signal.SIGTERM)


class Fleet:
    """Workers that are replaced when they end, however they end."""

    def __init__(self, redis_url: str, size: int, **environment: str) -> None:
        own = {"HEADSTART_REDIS_URL": redis_url, "HEADSTART_HTTP_PORT": "0"}
        self._environment = SETTINGS | own | environment
        self._size = size
        self.workers: list[Process] = []
        self.deaths = 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work while the context is open."""
        self.workers = [self._new() for _ in range(self._size)]
        keeper = asyncio.create_task(self._keep())
        try:
            await asyncio.gather(*(each.says("headstart worker ready") for each in self.workers))
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            for each in self.workers:
                each.stop()

    def _new(self) -> Process:
        return run_headstart("worker", **self._environment)

    async def _keep(self) -> None:
        while True:
            for place, each in enumerate(self.workers):
                if not each.alive:
                    self.deaths += 1
                    each.stop()
                    self.workers[place] = self._new()
            await asyncio.sleep(0.05)
