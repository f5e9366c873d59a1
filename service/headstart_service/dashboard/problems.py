"""Name the causes why the service does not do its work, for a viewer of everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from ..domain import RunKey, RunSummary, Stats, Status, WorkerState
from ..domain.causes import FLOOD, Facts, causes

_TRIPS: Final = 3
"""Looks of which the fastest read counts: one that waits for a busy process is no slow Redis."""

ReadFacts = Callable[[], Facts]
"""Returns what the process itself knows: its certificate, and what Redis refuses."""
ReadStats = Callable[[str], Awaitable[Stats]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was read of the store for one snapshot of everything."""

    stats: Stats
    live: Sequence[RunSummary]
    """Some runs that have not ended."""
    workers: Sequence[WorkerState]
    trip: float
    """Seconds of a read."""


class Problems:
    """Compares each look with the one before."""

    def __init__(self, facts: ReadFacts, stats: ReadStats) -> None:
        """Add `facts` to what is read; count the one with the most pending runs by `stats`."""
        self._facts = facts
        self._stats = stats
        self._waited: set[tuple[RunKey, int]] = set()
        self._trips: deque[float] = deque(maxlen=_TRIPS)

    def away(self, reason: str) -> list[Mapping[str, str]]:
        """Return the causes while the store cannot be read, for this reason."""
        return _as_json(replace(self._facts(), store_problem=reason))

    async def found(self, look: Look) -> list[Mapping[str, str]]:
        """Return the causes that a look at the store shows. Raises StoreUnavailable."""
        pending = [run for run in look.live if run.status is Status.PENDING]
        waiting = {(run.key, run.revision) for run in pending if run.lacks is None}
        waits, self._waited = bool(waiting & self._waited), waiting
        self._trips.append(look.trip)
        counts = look.stats.counts
        all_pending = counts.get(Status.PENDING, 0)
        largest = max(look.stats.pending, key=look.stats.pending.__getitem__, default="")
        its = await self._stats(largest) if all_pending >= FLOOD else Stats({}, 0)
        facts = replace(
            self._facts(),
            queued=look.stats.queued_jobs,
            running=counts.get(Status.IN_PROGRESS, 0),
            step_runs=look.stats.pending_step_runs,
            running_step_runs=look.stats.running_step_runs,
            unserved=look.stats.unserved,
            lacks={run.pipeline: run.lacks for run in pending if run.lacks is not None},
            workers=len(look.workers),
            pools=look.stats.pools,
            waits=waits,
            pending=look.stats.pending,
            all_pending=all_pending,
            kept=sum(counts.values()),
            kept_in={largest: sum(its.counts.values())},
            store_trip=min(self._trips),
            providers=look.stats.providers,
            over_budget=look.stats.over_budget,
        )
        return _as_json(facts)


def _as_json(facts: Facts) -> list[Mapping[str, str]]:
    return [asdict(cause) for cause in causes(facts)]
