"""The time budget of one call: how long it may wait, and how late its last read may be.

A response that comes after the caller's deadline is lost. So a wait ends a margin before it. The
read at the end of the wait has a part of that margin, the grace.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RETRY_PAUSE: Final = 0.1
"""Seconds between reads while the store is unavailable and a caller still waits."""

_MARGIN_SHARE, _MARGIN_MIN, _MARGIN_MAX = 0.1, 0.02, 0.25
"""Of the time until the caller's deadline: the share that is kept for the response, in bounds."""
_GRACE_SHARE, _GRACE_MIN, _GRACE_MAX = 0.05, 0.01, 0.1
"""Of the wait: the share by which its last read may end late, in bounds; less than the margin."""


_ITEM, _ITEMS_SHARE = 0.0003, 0.5
"""Seconds for the last read of each further item of a batch, and the most of the time left."""


def answered_within(left: float) -> float:
    """Return the seconds in which a call must be answered whose caller leaves in `left`."""
    return left - min(max(left * _MARGIN_SHARE, _MARGIN_MIN), _MARGIN_MAX)


class Deadline(NamedTuple):
    """How long a call may wait, in seconds."""

    wait: float
    """Zero or less: it may not wait."""
    grace: float
    """How long after the wait its last read may end."""

    @classmethod
    def of_call(cls, wait: float, left: float | None = None, items: int = 1) -> Deadline:
        """Return the budget of a call that asks for `wait` and whose caller leaves in `left`.

        None means that the caller has no deadline. A call about many `items` ends its wait sooner.
        """
        if wait and left is not None:
            reads = min(_ITEM * (items - 1), left * _ITEMS_SHARE)
            wait = min(wait, answered_within(left) - reads)
        return cls(wait, min(max(wait * _GRACE_SHARE, _GRACE_MIN), _GRACE_MAX))


SHUTDOWN: Final = Deadline(0.0, RETRY_PAUSE)
"""The budget of every call that still waits when the process stops."""
