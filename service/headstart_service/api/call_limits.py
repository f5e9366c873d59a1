"""How many calls of a kind an API process holds at once; one more is refused at once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import TracebackType

from ..domain.errors import CapacityExhausted

_SOONEST, _LATEST = 0.5, 1.5
"""Seconds after which who is refused may ask again: not all at the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How many calls may be under way at once, in one process. Health is no part of them."""

    waiters: int = 20_000
    """GetResults, which may wait; those that this process can answer by itself are not counted."""
    watches: int = 5000
    """WatchResults."""
    calls: int = 2000
    """All others together."""


class Gate:
    """Counts the calls that are under way; a call enters it as a context.

    Raises CapacityExhausted on entry when there are too many. A call that waits holds some 20 kB,
    and one that is refused nothing.
    """

    __slots__ = ("_what", "inside", "limit")

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self.limit = limit
        self.inside = 0

    def __enter__(self) -> None:
        if self.inside >= self.limit:
            delay = random.uniform(_SOONEST, _LATEST)  # noqa: S311  # no secret
            raise CapacityExhausted(f"{self.limit} {self._what} are under way here", delay)
        self.inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.inside -= 1


class Gates:
    """The gates of a server; whoever made them can read how many are inside."""

    def __init__(self, limits: CallLimits) -> None:
        self.waiters = Gate("calls of GetResults", limits.waiters)
        self.watches = Gate("streams of WatchResults", limits.watches)
        self.calls = Gate("calls", limits.calls)

    @property
    def places(self) -> int:
        """How many calls may be inside at once, of all kinds together."""
        return self.waiters.limit + self.watches.limit + self.calls.limit
