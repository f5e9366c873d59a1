"""A floor: bare calls of grpc.aio, bytes to bytes, to a server that does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

PACKAGES = ("grpcio",)


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = channel.unary_unary("/bench.Bare/Answer")

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> str:
        del task, arguments
        await self._call(b"")
        return key

    async def find(self, key: str) -> str:
        return key

    async def wait(self, handle: str) -> Any:
        del handle
        return await self._call(b"")


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del at_once
    async with grpc.aio.insecure_channel(target) as channel:
        yield Client(channel)
