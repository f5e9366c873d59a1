"""Waits for tasks, and repeats a worker's background work while the store may be unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..domain.errors import StoreUnavailable

log = logging.getLogger(__name__)

_CANCEL_AGAIN = 1.0
"""Seconds between cancellations of a task that does not end."""


async def repeat(action: Callable[[], Awaitable[None]], every: float) -> None:
    """Run `action` `every` so many seconds; an unavailable store is logged."""
    while True:
        await asyncio.sleep(every)
        await once(action)


async def once(action: Callable[[], Awaitable[None]]) -> None:
    """Run `action`, and log an unavailable store."""
    try:
        await action()
    except StoreUnavailable as error:
        log.warning("upkeep: %s", error)


async def ended(task: asyncio.Task[Any]) -> None:
    """Return when a task has ended, however it did. `asyncio.wait` takes three times as long."""
    if task.done():
        return
    over = asyncio.get_running_loop().create_future()

    def note(_: object) -> None:
        if not over.done():
            over.set_result(None)

    task.add_done_callback(note)
    try:
        await over
    finally:
        task.remove_done_callback(note)


async def after_others(turns: int) -> None:
    """Return after so many turns of the loop, in which tasks that are ready go on."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: Python 3.11's wait_for, which redis-py sends with, may swallow it.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN)
