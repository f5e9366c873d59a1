"""Counts the work of steps whose results no run takes, such as those of a replaced run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..domain import Lease, StepRecord

Count = Callable[[Lease, StepRecord], Awaitable[None]]
"""Counts a step's work in the ledger. It decides under which fate, and never raises."""


class StoppedWork:
    """Passes stopped steps to the ledger, without keeping their runs waiting."""

    def __init__(self, count: Count | None = None) -> None:
        self._count = count
        self._counting: set[asyncio.Task[None]] = set()

    def note(self, lease: Lease, stopped: StepRecord) -> None:
        """Count the work of this step of a run, if there is any."""
        if self._count is None or stopped.work is None:
            return
        task = asyncio.ensure_future(self._pass_on(lease, stopped))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def aclose(self) -> None:
        """Return when all that was noted has been counted."""
        while self._counting:
            await asyncio.wait(self._counting)

    async def _pass_on(self, lease: Lease, stopped: StepRecord) -> None:
        if self._count is not None:
            await self._count(lease, stopped)
