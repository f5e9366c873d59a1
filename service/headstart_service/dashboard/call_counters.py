"""Counts what the API answers, a second at a time: all that the live page costs without a viewer.

Starts and ends of runs are counted while a viewer is there. Satisfies the API's call observer; the
hot path's part of it is two additions and a logarithm.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log2
from typing import Any, Final

from ..base.metric_labels import ResultsOutcome
from ..domain import Announcement, EventKind, Outcome

KEPT: Final = 180
"""Seconds that are remembered."""
_OUTCOMES: Final = tuple(ResultsOutcome)
_PER_OCTAVE: Final = 4
_BUCKETS: Final = 25 * _PER_OCTAVE
"""From 1 µs to 32 s, each bucket 19 % wider than the one before."""
_NAMESPACES: Final = 64
"""How many namespaces one second tells apart; what is beyond counts for the whole alone."""
_EXPECTED: Final = frozenset({"OK", "NOT_FOUND", "CANCELLED"})
"""Codes of calls that need no attention."""


@dataclass(slots=True)
class Second:
    """What happened in one second."""

    at: float = 0.0
    """When it ended, in seconds since the epoch."""
    outcomes: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """GetResults by outcome, in the order ready, waited, partial, missing."""
    times: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    """How many results that were ready took how long."""
    refused: int = 0
    """Calls that ended with an error of the caller's or the server's."""
    announced: bool = False
    """Whether runs were announced meanwhile, so that their starts and ends are known."""
    starts: int = 0
    ends: int = 0
    starts_in: Counter[str] = field(default_factory=Counter)
    ends_in: Counter[str] = field(default_factory=Counter)
    queued: int | None = None
    """Runs that waited for a worker at its end; None without a viewer."""

    def as_json(self, scope: frozenset[str] | None, *, whole: bool) -> dict[str, Any]:
        """Return what a viewer of these namespaces may know of it. Latencies are microseconds."""
        counts: dict[str, Any] = {"at": self.at, "starts": self.starts, "ends": self.ends}
        if not self.announced:
            counts["starts"] = counts["ends"] = None
        elif scope is not None:
            counts["starts"] = sum(self.starts_in[name] for name in scope)
            counts["ends"] = sum(self.ends_in[name] for name in scope)
        if whole:
            counts["outcomes"] = self.outcomes
            counts["refused"] = self.refused
            counts["p50"], counts["p99"] = quantile(self.times, 0.5), quantile(self.times, 0.99)
            counts["queued"] = self.queued
        return counts


class Counters:
    """The present second and those before it."""

    def __init__(self) -> None:
        self._now = Second()
        self.past: deque[Second] = deque(maxlen=KEPT)
        self.announced = False
        """Whether runs are announced to this process now: while a viewer is there."""
        self.calls: Counter[tuple[str, str]] = Counter()
        """Calls by method and code since the process began; ready results count as OK."""

    def ready(self, seconds: float, complete: bool) -> None:  # noqa: FBT001  # as the observer
        """A result was answered from memory."""
        now = self._now
        now.outcomes[0 if complete else 2] += 1
        now.times[int(log2(seconds * 1e6) * _PER_OCTAVE) if 1e-6 < seconds < 32 else 0] += 1  # noqa: PLR2004  # the buckets' ends

    def results(self, outcome: ResultsOutcome, seconds: float) -> None:
        """Any other GetResults had this outcome."""
        now = self._now
        now.outcomes[_OUTCOMES.index(outcome)] += 1
        if outcome == _OUTCOMES[0] and 1e-6 < seconds < 32:  # noqa: PLR2004  # as above
            now.times[int(log2(seconds * 1e6) * _PER_OCTAVE)] += 1

    def ended(self, method: str, code: str, _: float) -> None:
        """A call has ended."""
        self.calls[method, code] += 1
        if code not in _EXPECTED:
            self._now.refused += 1

    def started(self, outcome: Outcome) -> None:
        """A start was accepted; the announcement of the run counts, wherever it was made."""

    def damaged(self) -> None:
        """Count nothing for a damaged record: its call's code counts."""

    def receive(self, announcement: Announcement) -> None:
        """Count an announcement, of whatever process."""
        now = self._now
        namespace = announcement.key.namespace
        if announcement.kind is EventKind.STARTED:
            now.starts += 1
            by_name = now.starts_in
        elif announcement.kind.ends_run:
            now.ends += 1
            by_name = now.ends_in
        else:
            return
        if namespace in by_name or len(by_name) < _NAMESPACES:
            by_name[namespace] += 1

    def turn(self) -> Second:
        """Begin the next second; gives the one that is over."""
        done, self._now = self._now, Second(announced=self.announced)
        done.announced = done.announced and self.announced
        done.at = time.time()
        self.past.append(done)
        return done


def quantile(times: Iterable[int], share: float) -> float | None:
    """The microseconds below which this share of the counted times is; None without any."""
    counts = list(times)
    wanted = sum(counts) * share
    if not wanted:
        return None
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            # The bucket's geometric middle.
            return float(2 ** ((bucket + 0.5) / _PER_OCTAVE))
    raise AssertionError("the counts are fewer than their sum")
