"""The ledger: what became of every run, and of the work for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .permits import ProviderState
from .runs import Status


class Fate(StrEnum):
    """What became of work. The values are the names of the ledger's sums and of metrics' labels."""

    USED_READY = "used_ready"
    """Read, and there when the first reader came."""
    USED_WAITED = "used_waited"
    """Read, and there only after the first reader had come."""
    EXPIRED = "expired"
    """Its time was over before anybody read it."""
    EVICTED = "evicted"
    """It made room for others before anybody read it."""
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    """Another start of its key took its place before anybody read it."""
    FAILED = "failed"
    """Of a run, it failed; of a step, it or its run did."""

    @property
    def used(self) -> bool:
        """Whether a caller has read it."""
        return self in (Fate.USED_READY, Fate.USED_WAITED)


@dataclass(frozen=True, slots=True)
class Work:
    """How much of it met one fate."""

    runs: int = 0
    steps: int = 0
    compute: float = 0.0
    """Seconds that the steps took, each from its first try to its end."""
    cpu: float = 0.0
    """Seconds of CPU."""
    llm_tokens: int = 0
    """Read and written, without those that were read from a prompt cache."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """What users of one pipeline did not have to wait for."""

    runs: int
    """Runs that completed and were read."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of every run that was started, and of its steps' work, each counted once.

    `starts` are the runs of every fate and those whose fate is `open`.
    """

    since_us: int
    starts: int
    joined: int
    """Starts that a run under way served."""
    reused: int
    """Starts that a result which was there served."""
    open: int
    hidden: float
    """Seconds that users did not have to wait.

    Of a run that completed and was read, max(0, min(first read, completed) - started): the part of
    its computation that was over before the first read. A run that was ready counts in full. For a
    reader that stays until the end, that is the duration minus its wait. A reader that leaves
    earlier waited for less, so more was hidden. Time in the queue hides nothing, and takes nothing
    away.
    """
    llm_calls: int = 0
    """Calls of language models, each try, to whatever end."""
    llm_cached_tokens: int = 0
    """Tokens of questions that language models read from their prompt caches."""
    waited: float
    """Seconds from the first read to the end, of runs that were first read before their end."""
    fates: Mapping[Fate, Work]
    pipelines: Mapping[str, Hidden]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has to do, and how many workers for it.

    Steps of runs of other pools count as runs here: each takes a worker.
    """

    queued: int = 0
    running: int = 0
    workers: int = 0
    oldest_wait: float = 0.0
    """Seconds that the run has waited that waits longest, of those that some worker can compute."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is kept, by status, and how much is queued."""

    counts: Mapping[Status, int]
    queued_jobs: int
    oldest_wait: float = 0.0
    """Seconds that the oldest job has been waiting for a worker."""
    ledger: Ledger | None = None
    """None for a namespace that the ledger does not name: nothing was started, or in too many."""
    unserved: Mapping[str, int] = field(default_factory=dict)
    """Of the queued jobs, those for runs that workers have met and none offers, by pipeline."""
    pending: Mapping[str, int] = field(default_factory=dict)
    """Pending runs by namespace, of the first 250 namespaces of a partition that have some."""
    providers: Sequence[ProviderState] = ()
    """Those that were called lately, by name."""
    over_budget: Mapping[str, int] = field(default_factory=dict)
    """Namespaces that have used up their tokens of the day, each with its budget."""
    pools: Mapping[str, PoolStats] = field(default_factory=dict)
    pending_step_runs: int = 0
    """Steps of other pools than their run's that wait for a worker; `counts` leaves them out."""
    running_step_runs: int = 0

    @property
    def largest_share(self) -> float:
        """The largest share of the pending runs that one namespace holds."""
        whole = self.counts.get(Status.PENDING, 0)
        return max(self.pending.values(), default=0) / whole if whole else 0.0
