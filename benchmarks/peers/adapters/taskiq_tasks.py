"""taskiq with taskiq-redis as in its README: the stream broker, which is the durable one.

Who waits calls `wait_result`, which looks every 0.2 s by default. Results are pickled, after
pydantic has made JSON values of them.
"""

# mypy: ignore-errors
# taskiq is installed in that environment alone.

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from taskiq import AsyncTaskiqTask, TaskiqEvents
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from .. import work

PACKAGES = ("taskiq", "taskiq-redis", "redis")
_DEFAULT_POLL = 0.2
_TTL = 1800

# It "highly recommends" an expiry.
results = RedisAsyncResultBackend(redis_url=work.redis_url(), result_ex_time=_TTL)
broker = RedisStreamBroker(url=work.redis_url()).with_result_backend(results)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _load(_: Any) -> None:
    work.load()


@broker.task("noop")
async def noop(value: int) -> int:
    return work.nothing(value)


@broker.task("gate")
async def gate(path: str) -> float:
    return await work.gate(path)


@broker.task("kept")
async def kept(path: str) -> dict[str, Any]:
    return work.kept(path)


@broker.task("game")
def game(anchor: str, target: str) -> dict[str, Any]:
    # A plain function: it runs those on threads.
    return work.game(anchor, target)


class Client:
    def __init__(self) -> None:
        self._poll = work.poll(_DEFAULT_POLL)

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> AsyncTaskiqTask:
        tasks = {"noop": noop, "gate": gate, "kept": kept, "game": game}
        return await tasks[task].kicker().with_task_id(key).kiq(*arguments)

    async def find(self, key: str) -> AsyncTaskiqTask:
        return AsyncTaskiqTask(key, results)

    async def wait(self, handle: AsyncTaskiqTask) -> Any:
        result = await handle.wait_result(check_interval=self._poll)
        result.raise_for_error()
        return result.return_value


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target, at_once  # its pool makes them queue
    await broker.startup()
    try:
        yield Client()
    finally:
        await broker.shutdown()
