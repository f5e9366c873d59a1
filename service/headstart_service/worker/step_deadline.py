"""When the try of a step that runs in this context ends, for what it calls meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final


class StepClock:
    """The time of one try. It stands still while a call of the try waits for its turn."""

    __slots__ = ("_end", "_left", "_limit", "_stops")

    def __init__(self, seconds: float, limit: asyncio.Timeout | None = None) -> None:
        """End in so many seconds; `limit` stops the try then, and is moved with the end."""
        self._end = time.monotonic() + seconds
        self._limit = limit
        self._stops = 0
        self._left = 0.0

    @property
    def left(self) -> float:
        """The seconds that are left, 0 or more."""
        return max(0.0, self._left if self._stops else self._end - time.monotonic())

    def stop(self) -> None:
        """Let no time pass until `go`. Several calls of a try may each stop the clock."""
        if not self._stops:
            self._left = self._end - time.monotonic()
            self._move(None)
        self._stops += 1

    def go(self) -> None:
        """End one `stop`."""
        self._stops -= 1
        if not self._stops:
            self._end = time.monotonic() + self._left
            self._move(asyncio.get_running_loop().time() + self._left)

    def _move(self, when: float | None) -> None:
        if self._limit is not None:
            with suppress(RuntimeError):  # it has expired already
                self._limit.reschedule(when)


_CLOCK: Final[ContextVar[StepClock | None]] = ContextVar("headstart_step_clock", default=None)


def end_in(seconds: float, limit: asyncio.Timeout | None = None) -> None:
    """Note that what runs in this context from now on is stopped in so many seconds, by `limit`."""
    _CLOCK.set(StepClock(seconds, limit))


def step_clock() -> StepClock | None:
    """Return the clock of the step's try; None outside of a step."""
    return _CLOCK.get()


@contextmanager
def step_stopped() -> Iterator[None]:
    """Let the clock of the step's try stand still, if this is in one."""
    clock = _CLOCK.get()
    if clock is None:
        yield
        return
    clock.stop()
    try:
        yield
    finally:
        clock.go()


def seconds_left() -> float | None:
    """Return the seconds that the step's try has left, 0 or more; None outside of a step."""
    clock = _CLOCK.get()
    return None if clock is None else clock.left
