"""Limits how many calls of a kind an API process serves at once; one more is refused at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType

from ..domain.errors import CapacityExhausted

_SOONEST, _LATEST = 0.5, 1.5
"""Bounds of the delay in seconds before a refused caller may retry, so that not all do at once."""


class CallKind(StrEnum):
    """The calls that are counted together; its values are labels of metrics."""

    WAIT = "GetResults"
    """Calls that may wait; those that memory alone can answer are not counted."""
    WATCH = "WatchResults"
    OTHER = "other"


class CallLimit:
    """Counts the calls that are under way; a call enters it as a context.

    Raises CapacityExhausted on entry when there are too many. A call that waits holds some 20 kB,
    a refused one nothing.
    """

    __slots__ = ("_spread", "_what", "inside", "limit")

    def __init__(
        self, what: str, limit: int, spread: Callable[[float, float], float] = random.uniform
    ) -> None:
        """Name `what` in the refusal; `spread` picks a delay between two bounds."""
        self._what = what
        self._spread = spread
        self.limit = limit
        self.inside = 0

    def __enter__(self) -> None:
        self._enter(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.inside -= 1

    @contextmanager
    def several(self, number: int) -> Iterator[None]:
        """Enter with so many at once, or not at all. Raises CapacityExhausted."""
        self._enter(number)
        try:
            yield
        finally:
            self.inside -= number

    def _enter(self, number: int) -> None:
        if self.inside + number > self.limit:
            delay = self._spread(_SOONEST, _LATEST)
            raise CapacityExhausted(f"{self.limit} {self._what} are under way here", delay)
        self.inside += number


class CallLimits:
    """The limits of one process. Health is no part of them."""

    def __init__(self, *, waiters: int = 20_000, watches: int = 5000, calls: int = 2000) -> None:
        """Limit GetResults to `waiters`, WatchResults to `watches`, all others to `calls`."""
        self.by_kind: Mapping[CallKind, CallLimit] = {
            CallKind.WAIT: CallLimit("calls of GetResults", waiters),
            CallKind.WATCH: CallLimit("streams of WatchResults", watches),
            CallKind.OTHER: CallLimit("calls", calls),
        }

    @property
    def total(self) -> int:
        """How many calls of all kinds together may be under way."""
        return sum(limit.limit for limit in self.by_kind.values())
