"""How long steps take when they are computed here."""

from __future__ import annotations

from collections import OrderedDict, deque
from statistics import median
from typing import Final

from headstart._process import ForkLock

# Durations change with the machine's load: what counts is the recent past.
_REMEMBERED: Final = 31
# Names of steps come from callers' code, so there are few; a bound all the same.
_MOST_STEPS: Final = 1024


class Durations:
    """Rolling medians by pipeline and step, for all threads and tasks."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._seconds: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def note(self, pipeline: str, step: str, seconds: float) -> None:
        """A step took so long; the pipeline is "" where the service did not tell it."""
        with self._lock:
            for name in {pipeline, ""}:
                of_step = self._seconds.setdefault((name, step), deque(maxlen=_REMEMBERED))
                of_step.append(seconds)
                self._seconds.move_to_end((name, step))
            while len(self._seconds) > _MOST_STEPS:
                self._seconds.popitem(last=False)

    def expected(self, pipeline: str, step: str) -> float | None:
        """The median, of steps of that name in any pipeline if need be; None if unknown."""
        with self._lock:
            known = self._seconds.get((pipeline, step)) or self._seconds.get(("", step))
            return median(known) if known else None
