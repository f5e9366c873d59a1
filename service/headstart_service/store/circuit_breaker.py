"""Circuit breaker for a partition's server.

Without it, a server that is away costs every caller its whole budget, and all callers meet a server
that comes back at once. So after some failures in a row calls fail without a trip. One call at a
time probes whether the server is back.
"""

from __future__ import annotations

from dataclasses import dataclass

_OPENS_AT = 3
"""Trips that fail in a row: one slow answer on a busy machine is no outage."""
_PAUSE = 0.2
"""Seconds between two probes: a server that is back is noticed within this time."""


@dataclass(slots=True)
class CircuitBreaker:
    """The state of the breaker for one server. Times are of the event loop."""

    patience: float
    """Seconds that a trip takes at most."""
    failures: int = 0
    """In a row."""
    lost: int = 0
    """All that ever failed."""
    next_probe: float = 0.0
    reason: str = "Redis does not answer"
    """Why the last trip that failed did."""

    @property
    def away(self) -> bool:
        """Whether the last trip failed."""
        return self.failures > 0

    @property
    def open(self) -> bool:
        """Whether calls fail without a trip now, except a probe."""
        return self.failures >= _OPENS_AT

    def admits(self, now: float) -> bool:
        """Return whether a call may be sent; to a server that is away, only as a probe."""
        if not self.open:
            return True
        if now < self.next_probe:
            return False
        # The next probe waits for this one, but not for ever: its caller may be cancelled.
        self.next_probe = now + self.patience + _PAUSE
        return True

    def answered(self) -> None:
        """Note that a trip succeeded."""
        self.failures = 0

    def failed(self, now: float, reason: str = reason) -> None:
        """Note that a trip failed, for this reason."""
        self.reason = reason
        self.failures += 1
        self.lost += 1
        self.next_probe = now + _PAUSE
