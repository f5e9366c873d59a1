"""Headstart, through the client that its users have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from headstart import PrecomputeClient

PACKAGES = ("grpcio", "protobuf")
_WAIT = 120.0
_INPUTS = {"noop": "value", "gate": "path"}


class Client:
    def __init__(self, headstart: PrecomputeClient) -> None:
        self._headstart = headstart

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> str:
        if task == "game":
            anchor, target = arguments
            await self._headstart.start_bridging(key, anchor, target, "human")
        else:
            await self._headstart.start(key, task, {_INPUTS[task]: arguments[0]})
        return key

    async def find(self, key: str) -> str:
        return key

    async def wait(self, handle: str) -> Any:
        results = await self._headstart.get_results(handle, wait=_WAIT)
        if results.missing:
            raise RuntimeError(f"{handle} misses {results.missing}")
        if results.bridging is not None:
            return results.bridging
        (value,) = (results.custom or {}).values()
        return value


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del at_once  # one channel carries them all
    # A thousand at once on a busy machine may take longer to be accepted than one alone.
    async with PrecomputeClient(target, timeout=30.0) as headstart:
        await headstart.connect()
        yield Client(headstart)
