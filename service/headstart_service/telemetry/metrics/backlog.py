"""Figures that the store alone knows: what is kept and queued. Read for each scrape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...domain import (
    Ledger,
    Stats,
    Status,
    Work,
)
from ...domain.errors import HeadstartError
from .instruments import Instruments

log = logging.getLogger(__name__)

_FRESH = 1.0
"""Seconds for which the store's answer serves all scrapes."""
_PATIENCE = 0.5
"""Seconds after which a look goes without it."""


class BacklogMetrics(Collector):
    """What the store holds; nothing while it does not answer."""

    def __init__(self, ask: Callable[[], Awaitable[Stats]], limit: int) -> None:
        """Ask so; at most `limit` runs are kept."""
        self._ask = ask
        self._stats: Stats | None = None
        self._until = 0.0
        instruments = Instruments()
        instruments.reading(
            "runs", "Runs that are kept, in the whole store.", self._counts, ("status",)
        )
        instruments.reading("runs_limit", "Runs that are kept at most.", lambda: limit)
        instruments.reading(
            "queue_depth",
            "Jobs that no worker has taken, in the whole store.",
            lambda: self._stats.queued_jobs if self._stats else None,
        )
        instruments.reading(
            "queue_oldest_wait_seconds",
            "How long the oldest of these has been waiting.",
            lambda: self._stats.oldest_wait if self._stats else None,
        )
        instruments.reading(
            "queue_unserved_runs",
            "Pending runs that workers have met and cannot compute, in the whole store.",
            lambda: {(n,): c for n, c in self._stats.unserved.items()} if self._stats else {},
            ("pipeline",),
        )
        self._show_ledger(instruments)
        self._instruments = instruments

    def _show_ledger(self, instruments: Instruments) -> None:
        """Show what became of work. Every replica reports the store's sums: do not add them up."""
        reading, per_fate = instruments.reading, self._per_fate
        reading(
            "ledger_starts_total",
            "Runs that were queued, in the whole store.",
            lambda: self._of_ledger(lambda ledger: ledger.starts),
        )
        reading(
            "ledger_unsettled_runs",
            "Runs of which it is not known yet what becomes of them.",
            lambda: self._of_ledger(lambda ledger: ledger.open),
        )
        reading(
            "ledger_runs_total",
            "Runs by what became of them, in the whole store.",
            per_fate(lambda work: work.runs),
            ("fate",),
        )
        reading(
            "ledger_steps_total",
            "Steps that were worked on by what became of that, in the whole store.",
            per_fate(lambda work: work.steps),
            ("fate",),
        )
        reading(
            "ledger_compute_seconds_total",
            "Durations of these steps.",
            per_fate(lambda work: work.compute),
            ("fate",),
        )
        reading(
            "ledger_cpu_seconds_total",
            "CPU that these steps took.",
            per_fate(lambda work: work.cpu),
            ("fate",),
        )
        reading(
            "ledger_llm_tokens_total",
            "Language model tokens that these steps read and wrote.",
            per_fate(lambda work: work.llm_tokens),
            ("fate",),
        )
        reading(
            "ledger_hidden_seconds_total",
            "Time that users did not have to wait, in the whole store.",
            self._hidden,
            ("pipeline",),
        )
        reading(
            "ledger_waited_seconds_total",
            "Time from the first read to the end, of runs first read before it.",
            lambda: self._of_ledger(lambda ledger: ledger.waited),
        )

    def _of_ledger(self, read: Callable[[Ledger], float]) -> float | None:
        ledger = self._stats.ledger if self._stats else None
        return None if ledger is None else read(ledger)

    def _per_fate(
        self, read: Callable[[Work], float]
    ) -> Callable[[], dict[tuple[str, ...], float]]:
        def found() -> dict[tuple[str, ...], float]:
            ledger = self._stats.ledger if self._stats else None
            return {(f.value,): read(work) for f, work in ledger.fates.items()} if ledger else {}

        return found

    def _hidden(self) -> dict[tuple[str, ...], float]:
        ledger = self._stats.ledger if self._stats else None
        return {(n,): hidden.seconds for n, hidden in ledger.pipelines.items()} if ledger else {}

    async def refresh(self) -> None:
        """Read the present state, or none of it; takes no more than half a second."""
        clock = asyncio.get_running_loop().time
        if clock() < self._until:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                self._stats = await self._ask()
        except (HeadstartError, TimeoutError) as error:
            self._stats = None
            log.debug("no figures of the store: %s", error)
        self._until = clock() + _FRESH

    def _counts(self) -> dict[tuple[str, ...], float]:
        if self._stats is None:
            return {}
        return {(status.value,): self._stats.counts.get(status, 0) for status in Status}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the last refresh."""
        return self._instruments.collect()
