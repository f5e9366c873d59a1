"""Measure how fast runs end, and compute the delay before a refused caller may retry."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_WINDOW = 5.0
"""Seconds that a rate is measured over: those of the last full window and of the present one."""
_LEAST = 1.0
"""Seconds that a rate is measured over at least."""
_SHORTEST, _LONGEST = 0.1, 60.0


class DrainRate:
    """Counts runs that start and end, and estimates when a backlog of them will be gone.

    After two windows without a run there is nothing to measure: an idle service has shown nothing
    of what it can do. So measuring begins anew with the first run.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._spread = spread
        self._counted = self._since = self._turned = clock()
        self._before = self._now = 0

    def count(self, *, ended: bool) -> None:
        """Count a run that has started or, with `ended`, needs no worker any more."""
        now = self._clock()
        if now - self._counted > 2 * _WINDOW:
            self._since = self._turned = now
            self._before = self._now = 0
        self._counted = now
        self._turn(now)
        self._now += ended

    def retry_after(self, backlog: int) -> float:
        """Return the seconds after which so many runs will have ended, or a good part of them.

        Not the moment at which the first place is free: every refused caller gets the same answer.
        Nor all the same moment, or they would all be back at once.
        """
        now = self._clock()
        self._turn(now)
        measured = max(now - max(self._turned - _WINDOW, self._since), _LEAST)
        rate = max(self._before + self._now, 1) / measured
        whole = backlog / rate
        return min(max(self._spread(whole / 2, whole), _SHORTEST), _LONGEST)

    def _turn(self, now: float) -> None:
        """Begin the present window's successor when it is over."""
        windows = int((now - self._turned) / _WINDOW)
        if windows:
            self._before = self._now if windows == 1 else 0
            self._now = 0
            self._turned += windows * _WINDOW
