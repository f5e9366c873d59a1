"""Figures of a process's dealings with Redis. Satisfies `store.store_observer.StoreObserver`."""

from __future__ import annotations

from collections.abc import Callable

from ...base.metric_labels import Eviction, MemoLookup
from .instruments import SIZES, Instruments


class StoreMetrics(Instruments):
    """Counts round trips and what their replies report."""

    def __init__(self, process: str) -> None:
        """Of the process of this name, of which a pod may have two."""
        super().__init__()
        self._process = process
        self._trips = self.histogram(
            "store_trip_duration_seconds",
            "Time of a round trip to Redis, by script.",
            ("process", "command"),
        )
        self._batches = self.histogram(
            "store_batch_size",
            "Calls that shared a round trip to Redis.",
            ("process", "command"),
            SIZES,
        )
        self._errors = self.counter(
            "store_errors_total",
            "Calls of the store that failed: `timeout`, `lost`, `refused`, `full`, or `skipped` "
            "while the circuit breaker is open. Others than `full` have no sample before the "
            "first.",
            ("process", "command", "error"),
        )
        # Exported as 0 from the start: an alert needs the rise at the first refusal.
        self._errors.begin([(process, "start", "full")])
        self._damaged = self.counter(
            "damaged_records_total",
            "Records and jobs in Redis that others have changed.",
            ("process",),
        )
        self._damaged.begin([(process,)])
        self._evicted = self.counter(
            "evictions_total",
            "Runs that are kept no longer: `read`, `unread` or `namespace` for those that made "
            "room, or `expired`. Those that ListPrecomputes removes are not counted.",
            ("process", "kind"),
        )
        self._evicted.begin((process, kind) for kind in Eviction)
        self._shed = self.counter(
            "runs_shed_total",
            "Queued runs that were dropped because they could not be ready in time.",
            ("process",),
        )
        self._shed.begin([(process,)])

    def watch_breaker(self, unreachable: Callable[[], int]) -> None:
        """Show, too, of how many partitions the server is known to be away."""
        self.reading(
            "store_unreachable_partitions",
            "Partitions with an open circuit breaker: their Redis is away, and calls fail at once.",
            lambda: {(self._process,): unreachable()},
            ("process",),
        )

    def trip(self, command: str, calls: int, seconds: float) -> None:
        """Count a round trip."""
        self._trips.of(self._process, command).note(seconds)
        self._batches.of(self._process, command).note(calls)

    def failed(self, command: str, calls: int, error: str) -> None:
        """Count calls that got no reply."""
        self._errors.add(self._process, command, error, by=calls)

    def damaged(self) -> None:
        """Count a damaged record."""
        self._damaged.add(self._process)

    def evicted(self, kind: Eviction, runs: int) -> None:
        """Count runs that are kept no longer."""
        self._evicted.add(self._process, kind, by=runs)

    def looked(self, result: MemoLookup) -> None:
        """Nothing, as below."""

    def shed(self, runs: int) -> None:
        """Count runs that were ended in the queue."""
        self._shed.add(self._process, by=runs)

    def given_up(self) -> None:
        """Of an API process nothing: it takes no jobs."""

    def reclaimed(self, jobs: int) -> None:
        """Nothing, as above."""


class WorkerStoreMetrics(StoreMetrics):
    """Counts what becomes of the jobs that are taken, too."""

    def __init__(self, process: str) -> None:
        super().__init__(process)
        self._given_up = self.counter(
            "runs_given_up_total", "Runs that failed after losing three workers."
        )
        self._reclaimed = self.counter(
            "runs_reclaimed_total", "Runs taken over after a worker's lease expired."
        )

        self._lookups = self.counter(
            "memo_lookups_total",
            "Lookups of memoised results: `hit`, `miss`, `damaged`, or `away` when Redis did not "
            "answer.",
            ("result",),
        )
        self._lookups.begin((result,) for result in MemoLookup)

    def looked(self, result: MemoLookup) -> None:
        """Count a lookup of a memo."""
        self._lookups.add(result)

    def given_up(self) -> None:
        """Count a run that failed for its lost workers."""
        self._given_up.add()

    def reclaimed(self, jobs: int) -> None:
        """Count jobs taken over."""
        self._reclaimed.add(by=jobs)
