"""Whether a partition's server answers and, while it does not, who may ask it: a circuit breaker.

A server that is away costs every caller the whole budget to find out, and one that comes back is
met by all of them at once. So after some failures in a row calls fail without a trip, but for one
at a time that finds out whether it is back.
"""

from __future__ import annotations

from dataclasses import dataclass

_OPENS_AT = 3
"""Trips that fail in a row: one slow answer on a busy machine is no outage."""
_PAUSE = 0.2
"""Seconds between two trips that find out: so soon is it noticed that the server is back."""


@dataclass(slots=True)
class Reach:
    """What the trips to one server told. Times are of the event loop."""

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
        """Whether calls fail without a trip now, but for the one that finds out."""
        return self.failures >= _OPENS_AT

    def admits(self, now: float) -> bool:
        """Whether a call may be sent; of a server that is away, only to find out."""
        if not self.open:
            return True
        if now < self.next_probe:
            return False
        # Until it is known what came of this one. Its caller may go, so that nothing ever does.
        self.next_probe = now + self.patience + _PAUSE
        return True

    def answered(self) -> None:
        """A trip came back."""
        self.failures = 0

    def failed(self, now: float, reason: str = reason) -> None:
        """A trip did not come back, for this reason."""
        self.reason = reason
        self.failures += 1
        self.lost += 1
        self.next_probe = now + _PAUSE
