"""docket as in its "Getting started": `docket worker`, `docket.add`, `Execution.get_result`.

Who waits is subscribed to the run's channel, on a connection of its own. Results are pickled and
base64-encoded in JSON.
"""

# mypy: ignore-errors
# docket is installed in that environment alone.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from docket import Docket
from docket.execution import Execution

from .. import work

PACKAGES = ("pydocket", "redis")


async def noop(value: int) -> int:
    return work.nothing(value)


async def gate(path: str) -> float:
    return await work.gate(path)


async def kept(path: str) -> dict[str, Any]:
    return work.kept(path)


async def game(anchor: str, target: str) -> dict[str, Any]:
    # The first one loads the model: a docket worker has no hook of its own to do it before.
    return await asyncio.to_thread(work.game, anchor, target)


TASKS = (noop, gate, kept, game)


class Client:
    def __init__(self, docket: Docket) -> None:
        self._docket = docket

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> Execution:
        return await self._docket.add(task, key=key)(*arguments)

    async def find(self, key: str) -> Execution:
        found = await self._docket.get_execution(key)
        if found is None:
            raise LookupError(key)
        return found

    async def wait(self, handle: Execution) -> Any:
        return await handle.get_result()


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target
    # A connection for each who waits: redis-py's own limit is 100, and raises.
    url = work.redis_url()
    url += f"{'&' if '?' in url else '?'}max_connections={at_once + 100}"
    async with Docket(url=url) as docket:
        for task in TASKS:
            docket.register(task)
        yield Client(docket)
