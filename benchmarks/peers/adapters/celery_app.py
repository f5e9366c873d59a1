"""Celery with Redis as broker and as result back end, as in its "First steps".

Who waits calls `AsyncResult.get`, which subscribes to the result's channel: nobody polls. Its
client blocks, so an asyncio backend calls it on threads; one at a time is called directly.
"""

# mypy: ignore-errors
# Celery is installed in that environment alone.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.signals import worker_process_init

from .. import work

PACKAGES = ("celery", "kombu", "redis")


def _url() -> str:
    """In its own spelling."""
    path = work.redis_url().removeprefix("unix://")
    if path == work.redis_url():
        return path
    return f"redis+socket://{path.replace('?db=', '?virtual_host=')}"


app = Celery("peers", broker=_url(), backend=_url())
app.task(work.nothing, name="noop")
app.task(work.blocking_gate, name="gate")
app.task(work.kept, name="kept")
app.task(work.game, name="game")


@worker_process_init.connect
def _load(**_: Any) -> None:
    work.load()


class Client:
    def __init__(self, threads: ThreadPoolExecutor | None) -> None:
        self._threads = threads

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> AsyncResult:
        # It blocks for as long as Redis takes; on threads it would be slower.
        return app.tasks[task].apply_async(arguments, task_id=key)

    async def find(self, key: str) -> AsyncResult:
        return AsyncResult(key, app=app)

    async def wait(self, handle: AsyncResult) -> Any:
        if self._threads is None:
            return handle.get()
        return await asyncio.get_running_loop().run_in_executor(self._threads, handle.get)


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    del target
    if at_once == 1:
        yield Client(None)
        return
    # Each thread asks for itself: redis-py's own limit is 100, and raises.
    app.conf.redis_max_connections = at_once + 100
    with ThreadPoolExecutor(at_once) as threads:
        yield Client(threads)
