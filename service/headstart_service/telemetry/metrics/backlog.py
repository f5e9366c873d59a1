"""Figures that the store alone knows: what is kept and queued. Read for each scrape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...domain import (
    Fate,
    Ledger,
    PoolStats,
    Stats,
    Status,
    Work,
)
from ...domain.errors import HeadstartError
from .instruments import Description, Instruments, one_of

log = logging.getLogger(__name__)

WHOLE_STORE = " In the whole store."
"""Ends the help of what every API process reports alike, so that no sum is taken of it."""
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
        instruments.reading("runs", f"Runs that are kept.{WHOLE_STORE}", self._counts, ("status",))
        instruments.reading(
            "runs_limit",
            "Most runs that are kept, `HEADSTART_MAX_CACHED_RESULTS`.",
            lambda: limit,
        )
        instruments.reading(
            "queue_depth",
            f"Jobs that no worker has taken.{WHOLE_STORE}",
            lambda: self._stats.queued_jobs if self._stats else None,
        )
        instruments.reading(
            "queue_oldest_wait_seconds",
            f"Age of the oldest job that no worker has taken.{WHOLE_STORE}",
            lambda: self._stats.oldest_wait if self._stats else None,
        )
        instruments.reading(
            "queue_largest_share",
            f"Largest share of the pending runs that one namespace holds.{WHOLE_STORE}",
            lambda: self._stats.largest_share if self._stats else None,
        )
        instruments.reading(
            "queue_unserved_runs",
            f"Pending runs whose pipeline version no worker has.{WHOLE_STORE}",
            lambda: {(n,): c for n, c in self._stats.unserved.items()} if self._stats else {},
            ("pipeline",),
        )
        instruments.reading(
            "budget_used_up_tokens",
            "Daily budget of language model tokens of each namespace that has used it up."
            f"{WHOLE_STORE}",
            lambda: {(n,): c for n, c in self._stats.over_budget.items()} if self._stats else {},
            # Kubernetes gives each scraped series the label `namespace`.
            ("tenant",),
        )
        instruments.reading(
            "step_runs",
            "Steps of other pools than their run's, `pending` or `in_progress`; "
            f"`headstart_runs` leaves them out.{WHOLE_STORE}",
            self._step_runs,
            ("status",),
        )
        self._show_pools(instruments)
        self._show_ledger(instruments)
        self._instruments = instruments

    def _show_pools(self, instruments: Instruments) -> None:
        """Show what each pool has to do. Every replica reports the same."""

        def per_pool(
            read: Callable[[PoolStats], float],
        ) -> Callable[[], dict[tuple[str, ...], float]]:
            def found() -> dict[tuple[str, ...], float]:
                pools = self._stats.pools if self._stats else {}
                return {(name,): read(pool) for name, pool in pools.items()}

            return found

        for what, help_text, read in (
            (
                "queued_runs",
                "Runs, and steps of runs of other pools, that no worker has taken",
                lambda pool: pool.queued,
            ),
            (
                "running_runs",
                "Runs, and steps of runs of other pools, that a worker has taken and not ended",
                lambda pool: pool.running,
            ),
            (
                "oldest_wait_seconds",
                "Wait of the run that has waited longest, of those that some worker can compute",
                lambda pool: pool.oldest_wait,
            ),
            ("workers", "Live workers that serve the pool", lambda pool: pool.workers),
        ):
            instruments.reading(
                f"pool_{what}", f"{help_text}.{WHOLE_STORE}", per_pool(read), ("pool",)
            )

    def _show_ledger(self, instruments: Instruments) -> None:
        """Show what became of work. Every replica reports the store's sums: do not add them up."""
        reading, per_fate = instruments.reading, self._per_fate
        reading(
            "ledger_starts_total",
            "Runs queued since the store was empty: the sum of all fates and the unsettled."
            f"{WHOLE_STORE}",
            lambda: self._of_ledger(lambda ledger: ledger.starts),
        )
        reading(
            "ledger_unsettled_runs",
            f"Runs without a fate yet: running, or unread.{WHOLE_STORE}",
            lambda: self._of_ledger(lambda ledger: ledger.open),
        )
        reading(
            "ledger_runs_total",
            f"Runs by fate: {one_of(Fate)}.{WHOLE_STORE}",
            per_fate(lambda work: work.runs),
            ("fate",),
        )
        reading(
            "ledger_steps_total",
            f"Executed steps, by fate.{WHOLE_STORE}",
            per_fate(lambda work: work.steps),
            ("fate",),
        )
        reading(
            "ledger_compute_seconds_total",
            f"Duration of the executed steps.{WHOLE_STORE}",
            per_fate(lambda work: work.compute),
            ("fate",),
        )
        reading(
            "ledger_cpu_seconds_total",
            f"CPU time of the executed steps.{WHOLE_STORE}",
            per_fate(lambda work: work.cpu),
            ("fate",),
        )
        reading(
            "ledger_llm_tokens_total",
            f"Language model tokens of the executed steps.{WHOLE_STORE}",
            per_fate(lambda work: work.llm_tokens),
            ("fate",),
        )
        reading(
            "ledger_llm_calls_total",
            f"Calls of language models, each try, cancelled and unanswered ones too.{WHOLE_STORE}",
            lambda: self._of_ledger(lambda ledger: ledger.llm_calls),
        )
        reading(
            "ledger_llm_cached_tokens_total",
            f"Tokens that language models read from their prompt caches.{WHOLE_STORE}",
            lambda: self._of_ledger(lambda ledger: ledger.llm_cached_tokens),
        )
        reading(
            "ledger_hidden_seconds_total",
            f"Wait that was hidden from users.{WHOLE_STORE}",
            self._hidden,
            ("pipeline",),
        )
        reading(
            "ledger_waited_seconds_total",
            f"Time from the first read to the end, of runs read before their end.{WHOLE_STORE}",
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

    def _step_runs(self) -> dict[tuple[str, ...], float]:
        if self._stats is None:
            return {}
        return {
            (Status.PENDING.value,): self._stats.pending_step_runs,
            (Status.IN_PROGRESS.value,): self._stats.running_step_runs,
        }

    def described(self) -> Iterator[Description]:
        """Describe its metrics."""
        return self._instruments.described()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the last refresh."""
        return self._instruments.collect()
