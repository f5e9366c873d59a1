"""When the try of a step that runs in this context ends, for what it calls meanwhile."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final

_END: Final[ContextVar[float | None]] = ContextVar("headstart_deadline", default=None)


def end_in(seconds: float) -> None:
    """Note that what runs in this context from now on is stopped in so many seconds."""
    _END.set(time.monotonic() + seconds)


def seconds_left() -> float | None:
    """Return the seconds that the step's try has left, 0 or more; None outside of a step."""
    end = _END.get()
    return None if end is None else max(0.0, end - time.monotonic())
