"""What a viewer of everything is told first: the causes why the service does not do its work."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from ..domain import RunKey, RunSummary, Stats, Status, WorkerState
from ..domain.causes import Facts, causes

_MANY: Final = 100
"""Pending runs from which those of single namespaces are counted."""
_CANDIDATES: Final = 2
"""Namespaces that are counted then, each by a read of the store."""
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
    busiest: Iterable[str]
    """Namespaces that started the most lately."""
    trip: float
    """Seconds of a read."""


class Problems:
    """Compares each look with the one before."""

    def __init__(self, facts: ReadFacts, stats: ReadStats) -> None:
        """Add `facts` to what is read; count single namespaces by `stats`."""
        self._facts = facts
        self._stats = stats
        self._waited: set[tuple[RunKey, int]] = set()
        self._trips: deque[float] = deque(maxlen=_TRIPS)

    def away(self, reason: str) -> list[Mapping[str, str]]:
        """Return the causes while the store cannot be read, for this reason."""
        return _told(replace(self._facts(), store_problem=reason))

    async def found(self, look: Look) -> list[Mapping[str, str]]:
        """Return the causes that a look at the store shows. Raises StoreUnavailable."""
        pending = [run for run in look.live if run.status is Status.PENDING]
        waiting = {(run.key, run.revision) for run in pending if run.lacks is None}
        waits, self._waited = bool(waiting & self._waited), waiting
        self._trips.append(look.trip)
        counts = look.stats.counts
        all_pending = counts.get(Status.PENDING, 0)
        several = await self._several(pending, look.busiest) if all_pending >= _MANY else {}
        facts = replace(
            self._facts(),
            queued=look.stats.queued_jobs,
            running=counts.get(Status.IN_PROGRESS, 0),
            unserved=look.stats.unserved,
            lacks={run.pipeline: run.lacks for run in pending if run.lacks is not None},
            workers=len(look.workers),
            free_slots=sum(max(each.slots - each.busy, 0) for each in look.workers),
            waits=waits,
            pending={name: each.counts.get(Status.PENDING, 0) for name, each in several.items()},
            all_pending=all_pending,
            kept=sum(counts.values()),
            kept_in={name: sum(each.counts.values()) for name, each in several.items()},
            store_trip=min(self._trips),
        )
        return _told(facts)

    async def _several(
        self, pending: Iterable[RunSummary], busiest: Iterable[str]
    ) -> dict[str, Stats]:
        """Return the counts of the namespaces that may hold the most pending runs."""
        sample = Counter(run.key.namespace for run in pending)
        names = dict.fromkeys([name for name, _ in sample.most_common(_CANDIDATES)])
        names |= dict.fromkeys(busiest)
        return {name: await self._stats(name) for name in names}


def _told(facts: Facts) -> list[Mapping[str, str]]:
    return [asdict(cause) for cause in causes(facts)]
