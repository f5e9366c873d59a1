"""The present try of a step, for providers that keep something for it until it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final


class StepTry:
    """One try. What it keeps stays kept if the try is cut off, as by a kill."""

    __slots__ = ("_at_end", "ended")

    def __init__(self) -> None:
        self.ended = False
        """Whether it has ended by itself. The step may have left calls behind."""
        self._at_end: list[Callable[[], None]] = []

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this once the try has ended by itself, with a result or a failure."""
        if self.ended:
            call()
        else:
            self._at_end.append(call)

    def end(self) -> None:
        """Call what was asked for."""
        self.ended = True
        calls, self._at_end = self._at_end, []
        for call in calls:
            call()


TRY: Final[ContextVar[StepTry | None]] = ContextVar("headstart_step_try", default=None)
"""The try of the step that runs in this context."""


def begin_try() -> StepTry:
    """Return a new try, which is that of this context."""
    begun = StepTry()
    TRY.set(begun)
    return begun
