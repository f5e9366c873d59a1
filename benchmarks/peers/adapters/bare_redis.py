"""A floor: a bare SET to start, a bare GET to have what was kept; nothing runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from .. import work

PACKAGES = ("redis",)


class Client:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> str:
        value = Path(arguments[0]).read_bytes() if task == "kept" else b"value"  # noqa: ASYNC240
        await self._redis.set(key, value)
        return key

    async def find(self, key: str) -> str:
        return key

    async def wait(self, handle: str) -> Any:
        return await self._redis.get(handle)


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target
    pool = BlockingConnectionPool.from_url(work.redis_url(), max_connections=at_once)
    async with Redis.from_pool(pool) as redis:
        yield Client(redis)
