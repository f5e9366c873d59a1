"""Remembers how long steps take when they are computed here."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Final

from headstart._transport.forks import ForkLock

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
        """Note how long a step took, in seconds; the pipeline is "" if it is unknown."""
        with self._lock:
            for name in {pipeline, ""}:
                of_step = self._seconds.setdefault((name, step), deque(maxlen=_REMEMBERED))
                of_step.append(seconds)
                self._seconds.move_to_end((name, step))
            while len(self._seconds) > _MOST_STEPS:
                self._seconds.popitem(last=False)

    def expected(self, pipeline: str, step: str) -> float | None:
        """Return the median in seconds, if need be of any pipeline's step; None if unknown."""
        with self._lock:
            known = self._seconds.get((pipeline, step)) or self._seconds.get(("", step))
            return _median(known) if known else None


def _median(values: Collection[float]) -> float:
    # Not that of `statistics`, whose import takes 3 ms.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
