"""Passes on what steps report of their progress, from any of the worker's threads to their runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Final, Protocol

from ..domain import Progress

_LONGEST: Final = 200
"""Characters of a message that callers get."""
_EVERY: Final = 0.5
"""Seconds between two reports of a step that are written; of those between, the last one is."""


class TakesReports(Protocol):
    """Whatever a step's reports go to."""

    def report(self, progress: Progress) -> None:
        """Take a report, from whatever thread."""
        ...


class Reporter:
    """Passes on what a step reports, the last report at each turn of the loop."""

    def __init__(self, note: Callable[[Progress], None]) -> None:
        """Call `note` in the running event loop."""
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._latest = Progress()
        self._due = False

    def report(self, progress: Progress) -> None:
        """Take a report, from whatever thread."""
        self._latest = progress
        if not self._due:
            self._due = True
            with suppress(RuntimeError):  # the worker has ended before its thread
                self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        self._due = False
        self._note(self._latest)


REPORTER: Final[ContextVar[TakesReports | None]] = ContextVar("headstart_progress", default=None)
"""That of the step that runs in this context."""


def report_progress(fraction: float | None = None, message: str = "") -> None:
    """Show callers how far the step that runs has come.

    It costs next to nothing: a step may report at each turn of its loop. Callers get a report every
    half second at most. It does nothing outside of a worker, nor for steps on Ray.

    Args:
        fraction: The part that is done, 0 to 1. None where that is not known.
        message: What the step does now. Callers may read it: no key, address or user's text. What
            is beyond 200 characters is cut off.

    Raises:
        ValueError: `fraction` is out of its range.
    """
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be 0 to 1, or None, is {fraction}")
    reporter = REPORTER.get()
    if reporter is not None:
        text = message[:_LONGEST].encode(errors="replace").decode()
        reporter.report(Progress(None if fraction is None else float(fraction), text))


class ShownProgress:
    """The progress of one run's steps, and when it is written next."""

    def __init__(self, show: Callable[[str], None]) -> None:
        """Call `show` when a step's progress should be written."""
        self._show = show
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._latest: dict[str, Progress] = {}

    @property
    def latest(self) -> Mapping[str, Progress]:
        """The last report of each step that has given one."""
        return self._latest

    def note(self, step: str, progress: Progress) -> None:
        """Take a step's report. The first one is written at once."""
        self._latest[step] = progress
        timer = self._timers.get(step)
        if timer is None:
            self._write(step)

    def end(self) -> None:
        """Write nothing more."""
        for timer in self._timers.values():
            timer.cancel()

    def _write(self, step: str) -> None:
        written = self._latest[step]
        self._show(step)

        def again() -> None:
            del self._timers[step]
            if self._latest[step] is not written:
                self._write(step)

        self._timers[step] = asyncio.get_running_loop().call_later(_EVERY, again)
