"""Writes what a step has given so far into the store, for one of the runs that wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from ..domain import Lease, PartialWrite
from ..domain.errors import HeadstartError, LeaseLost
from .ports import ProgressSink
from .step_log import StepLog

log = logging.getLogger(__name__)

_MOST: Final = 256 * 1024
"""Bytes of a write, but for a longer line."""
_PAUSE: Final = 0.0005
"""Seconds between two writes of a step, times the number of this worker's steps that write.

So all of them write at most 2,000 times a second, which takes a quarter of a Redis's time."""
_AGAIN: Final = 0.5
"""Seconds before another write, when the store was away or full."""
_LAST: Final = 1.0
"""Seconds for which a step's end waits for its last writes: its result has all of it, or counts
without it."""


class PartialWriters:
    """The writers of one worker."""

    def __init__(self) -> None:
        self.active = 0
        """How many steps write now."""

    @asynccontextmanager
    async def writing(
        self, source: StepLog, sink: ProgressSink, lease: Lease, step: str
    ) -> AsyncGenerator[None]:
        """Write what `source` gets, while the context is open; at its end all that is left."""
        if source.streaming is None:
            yield
            return
        writer = _Writer(self, source, sink, lease, step)
        with source.followed(writer.notify):
            try:
                yield
                await writer.finish()
            finally:
                await writer.stop()


class _Writer:
    """One run's copy of a step's log. One write is under way at a time.

    What is given meanwhile goes with the next write, so a token costs at most one, and a busy store
    gets fewer.
    """

    def __init__(
        self, writers: PartialWriters, source: StepLog, sink: ProgressSink, lease: Lease, step: str
    ) -> None:
        self._writers = writers
        self._source = source
        self._sink = sink
        self._lease = lease
        self._step = step
        self._trial = 0
        self._kept = 0
        self._over = False
        """Whether the run has another holder by now."""
        self._task: asyncio.Task[None] | None = None
        if source.trial:
            self.notify()  # this run has joined a step under way

    def notify(self) -> None:
        """Write what is new, unless that is under way."""
        if not self._over and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._write(), name=f"partial {self._step}")

    async def finish(self) -> None:
        """Return when everything is written, or cannot be."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LAST)

    async def stop(self) -> None:
        """Write nothing more."""
        self._over = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _write(self) -> None:
        self._writers.active += 1
        try:
            while (write := self._next()) is not None:
                try:
                    kept = await self._sink.append(self._lease, write)
                except LeaseLost:
                    self._over = True
                    return
                except HeadstartError as error:
                    log.info("what %s gives is written later: %s", self._step, error)
                    await asyncio.sleep(_AGAIN)
                    continue
                if write.trial == self._trial:
                    self._kept = kept
                await asyncio.sleep(self._writers.active * _PAUSE)
        finally:
            self._writers.active -= 1

    def _next(self) -> PartialWrite | None:
        """Return what to write now, if there is something."""
        source = self._source
        anew = False
        if self._trial != source.trial:
            # A text of an earlier try, or of another worker, may be kept: it is void from now on.
            anew = self._trial > 0 or self._lease.attempt > 1
            self._trial, self._kept = source.trial, 0
        data = bytes(source.data[self._kept : self._kept + _MOST + 1])
        whole = source.form.cut(data, _MOST)
        # A line that is longer than a write goes with all that follows it.
        data = data[:whole] if whole else bytes(source.data[self._kept :])
        if not data and not anew:
            return None
        return PartialWrite(self._step, source.form, self._trial, self._kept, data)
