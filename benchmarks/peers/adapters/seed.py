"""The design that Headstart comes from: asyncio tasks and a dictionary in the backend's process.

Its caller waits with a timeout for the task itself, which is the quickest that it can. What it has
dies with the process, no other replica can see it, and computing shares the backend's interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from .. import work

PACKAGES = ()
_TIMEOUT = 120.0


class Client:
    def __init__(self) -> None:
        self._runs: dict[str, asyncio.Task[Any]] = {}

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> str:
        tasks: dict[str, Callable[..., Coroutine[Any, Any, Any]]]
        tasks = {"noop": self._noop, "gate": work.gate, "kept": self._kept, "game": self._game}
        self._runs[key] = asyncio.create_task(tasks[task](*arguments))
        return key

    async def find(self, key: str) -> str:
        return key

    async def wait(self, handle: str) -> Any:
        async with asyncio.timeout(_TIMEOUT):
            return await asyncio.shield(self._runs[handle])

    @staticmethod
    async def _noop(value: int) -> int:
        return work.nothing(value)

    @staticmethod
    async def _kept(path: str) -> dict[str, Any]:
        return work.kept(path)

    @staticmethod
    async def _game(anchor: str, target: str) -> dict[str, Any]:
        # On a thread, or nobody else would be answered meanwhile.
        return await asyncio.to_thread(work.game, anchor, target)


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target, at_once
    work.load()
    yield Client()
