"""Tells when asking the service is not worth its price."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from headstart._process import ForkLock

# So many answers in a row that failed, or came too late to be of use, and nobody asks any more.
_FAILURES: Final = 3
# In seconds: how long nobody asks; doubled each time that the one who asked again was let down.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Breaker:
    """Of one service, for all threads and tasks that call it. Holds no timer and no task.

    Closed, everybody asks. Open, nobody does until the pause is over; then one asks, for all: its
    answer closes the breaker, and its failure, or its silence, makes the next pause longer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ForkLock()
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether calls are not made."""
        return self._failures >= _FAILURES

    def admits(self) -> bool:
        """Whether to ask now; who is told so reports what came of it."""
        with self._lock:
            if not self.open:
                return True
            if self._clock() < self._until:
                return False
            # Should this one never tell, another asks when as much time has passed again.
            self._rest()
            return True

    def answered(self) -> None:
        """An answer came in time."""
        with self._lock:
            self._failures = 0
            self._pause = 0.0

    def failed(self) -> None:
        """None came, or none that helps."""
        with self._lock:
            was_open = self.open
            self._failures += 1
            if self.open and not was_open:
                self._rest()

    def _rest(self) -> None:
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        # Not all processes shall ask at the same moment.
        self._until = self._clock() + self._pause * random.uniform(0.75, 1.0)  # noqa: S311  (no secret)
