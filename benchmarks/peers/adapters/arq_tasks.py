"""arq as in its documentation: `WorkerSettings`, `create_pool`, `Job.result`.

Both sides poll, by default every half a second: the worker for jobs, who waits for the result.
Results are pickled.
"""

# mypy: ignore-errors
# arq is installed in that environment alone.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job

from .. import work

PACKAGES = ("arq", "redis")
_DEFAULT_POLL = 0.5


async def noop(_: dict[str, Any], value: int) -> int:
    return work.nothing(value)


async def gate(_: dict[str, Any], path: str) -> float:
    return await work.gate(path)


async def kept(_: dict[str, Any], path: str) -> dict[str, Any]:
    return work.kept(path)


async def game(_: dict[str, Any], anchor: str, target: str) -> dict[str, Any]:
    # "Synchronous jobs" of its documentation: on an executor.
    return await asyncio.get_running_loop().run_in_executor(None, work.game, anchor, target)


async def _load(_: dict[str, Any]) -> None:
    work.load()


class WorkerSettings:
    functions = (noop, gate, kept, game)
    on_startup = _load
    redis_settings = RedisSettings.from_dsn(work.redis_url())
    poll_delay = work.poll(_DEFAULT_POLL)


class Client:
    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._poll = work.poll(_DEFAULT_POLL)

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> Job:
        return await self._redis.enqueue_job(task, *arguments, _job_id=key)

    async def find(self, key: str) -> Job:
        return Job(key, self._redis)

    async def wait(self, handle: Job) -> Any:
        return await handle.result(poll_delay=self._poll)


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target, at_once  # its pool has no limit
    async with await create_pool(RedisSettings.from_dsn(work.redis_url())) as redis:
        yield Client(redis)
