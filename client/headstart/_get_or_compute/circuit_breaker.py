"""Stops calls to a service that does not help: the circuit breaker."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from headstart._transport.forks import ForkLock

# Calls in a row that fail, or whose answers are late and of no use, before the breaker opens.
_FAILURES: Final = 3
# Seconds without calls; doubled after each trial call that fails.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Breaker:
    """Breaks the circuit to one service, for all threads and tasks. Holds no timer and no task.

    Closed, it admits all calls. Open, it admits none until the pause is over, and then one trial
    call. An answer closes the breaker; a failure, or no answer, doubles the pause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ForkLock()
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Return whether calls are not made."""
        return self._failures >= _FAILURES

    def admits(self) -> bool:
        """Return whether to call now; the caller of True reports the call's outcome."""
        with self._lock:
            if not self.open:
                return True
            if self._clock() < self._until:
                return False
            # A trial call without an outcome delays the next one by this pause, no longer.
            self._rest()
            return True

    def answered(self) -> None:
        """Note that an answer came in time."""
        with self._lock:
            self._failures = 0
            self._pause = 0.0

    def failed(self) -> None:
        """Note that no answer came in time, or none of use."""
        with self._lock:
            was_open = self.open
            self._failures += 1
            if self.open and not was_open:
                self._rest()

    def _rest(self) -> None:
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        # Jitter: processes must not all try at the same moment.
        self._until = self._clock() + self._pause * random.uniform(0.75, 1.0)  # noqa: S311  (no secret)
