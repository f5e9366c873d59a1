"""What a worker need not compute again: steps under way in it, and results that were memoised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

from ..domain import RunKey, StepRecord
from .partial_writer import PartialWriters
from .ports import MemoStore
from .shared_steps import SharedSteps
from .step_log import StepLogs
from .stopped_work import Count, StoppedWork


class Landed(NamedTuple):
    """What became of a step, for every run that waited for it."""

    run: RunKey
    """Whose it was."""
    record: StepRecord | None
    """As the run that computed it would keep it; None if it was remembered."""
    remembered: bytes = b""
    """The result that was remembered, as a fragment."""
    value: Any = None
    """What the step returned, for the run that computed it."""


class _NoMemos:
    """A MemoStore that remembers nothing."""

    async def memo_get(self, namespace: str, digest: str) -> bytes | None:
        """Nothing."""

    async def memo_put(
        self, namespace: str, digest: str, result: bytes, ttl: float | None = None
    ) -> None:
        """Nothing."""


class Reuse:
    """What the runs of one worker share."""

    def __init__(self, memos: MemoStore | None = None, count: Count | None = None) -> None:
        """Remember results in `memos`, and `count` the work of steps that no run takes."""
        self.shared_steps = SharedSteps()
        self.stopped_work = StoppedWork(count)
        self.step_logs = StepLogs()
        self.partial_writers = PartialWriters()
        self.memos: MemoStore = memos or _NoMemos()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At the end stop what is under way, and count its work."""
        try:
            async with aclosing(self.shared_steps):
                yield
        finally:
            await self.stopped_work.aclose()
