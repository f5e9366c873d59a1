"""A call that waits for its batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..domain import BatchedRequest, BatchOwner
from ..worker.step_caller import StepCaller
from ..worker.step_try import StepTry
from ..worker.upkeep import ended

T = TypeVar("T")


@dataclass(slots=True)
class BatchedCall:
    """Whose it is, and for how long it waits."""

    caller: StepCaller
    owner: BatchOwner
    request: BatchedRequest
    ends: float
    """When it is made directly, by the monotonic clock, if it is not hurried."""
    this_try: StepTry
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its step is needed at once, or has ended."""
    canceled: bool = False
    """Whether the API has agreed to cancel the batch."""

    @property
    def left(self) -> float:
        """Seconds until it is made directly."""
        return 0.0 if self.caller.hurry.is_set else max(0.0, self.ends - time.monotonic())

    async def first(self, task: asyncio.Task[Any]) -> None:
        """Return when the task has ended, or there is news."""
        news = asyncio.create_task(self.news.wait())
        try:
            await asyncio.wait({task, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    async def unless_news(
        self, work: Coroutine[Any, Any, T], unused: Callable[[T], object]
    ) -> T | None:
        """Return what the work returns; None, and cancel it, if there is news before.

        If this is cancelled, what the work has returned by then is given to `unused`.
        """
        task = asyncio.create_task(work)
        try:
            await self.first(task)
        except asyncio.CancelledError:
            task.cancel()
            await ended(task)
            if not task.cancelled() and task.exception() is None:
                unused(task.result())
            raise
        task.cancel()
        await ended(task)
        return None if task.cancelled() else task.result()
