"""Logs that the service went away and that it came back, not every failed call in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from headstart._errors import HeadstartError, ServiceUnavailable
from headstart._transport.forks import ForkLock

logger = logging.getLogger("headstart")

# A failed call without another for so long no longer counts as failing. Otherwise one failed call
# of a dashboard would silence the log for ever.
_REMEMBERED_SECONDS: Final = 60.0


class OutageLog:
    """Gathers failures of all calls into one WARNING, and their end into one INFO.

    While the service is unreachable, any answer to any call ends the outage. While it is reachable
    and one kind of call fails, only that kind's success does. Otherwise two kinds in turn, one good
    and one bad, would fill the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without an outage. `clock` returns seconds."""
        self._clock = clock
        self._lock = ForkLock()
        self._unreachable = False
        self._failing: dict[str, float] = {}

    def failed(self, call: str, error: HeadstartError) -> None:
        """Note that a call failed, and warn if that is news."""
        # A server that answers with a delay is reachable; it cannot serve this call.
        unreachable = isinstance(error, ServiceUnavailable) and error.retry_after is None
        with self._lock:
            self._forget_old()
            news = not self._unreachable and not self._failing
            if unreachable:
                self._unreachable = True
            else:
                self._failing[call] = self._clock()
        if news:
            logger.warning(
                "a call of Headstart failed, so results are computed live for now: %s: %s: %s",
                call,
                type(error).__name__,
                error,
            )

    def answered(self, call: str) -> None:
        """Note that a call was answered, and log it if that ends an outage."""
        with self._lock:
            if not self._unreachable and not self._failing:
                return
            self._unreachable = False
            self._failing.pop(call, None)
            self._forget_old()
            over = not self._failing
        if over:
            logger.info("Headstart serves again")

    def _forget_old(self) -> None:
        oldest = self._clock() - _REMEMBERED_SECONDS
        self._failing = {call: at for call, at in self._failing.items() if at >= oldest}
