"""What the queue and its workers hand each other: jobs, leases, claims, offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .items import KeptItems
from .runs import DEFAULT_POOL, RunKey, StepRecord, runs_class


@dataclass(frozen=True, slots=True)
class Offer:
    """A pipeline that a worker can run."""

    pipeline: str
    definition: str
    """The digest of its declaration."""
    makers: Mapping[str, str]
    """By step, a digest of the identities of all providers that it depends on, if it has any."""

    @property
    def runs_class(self) -> str:
        """What a run must be of to be computed by this worker."""
        return runs_class(self.pipeline, self.definition)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A pending run of a definition that no worker offers and no API process starts any more."""

    key: RunKey
    run: str
    pipeline: str
    inputs: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery of a ticket for a queued run to a worker.

    Until it is claimed, `key` and `run` are those of the start that queued it. The claim
    settles which run it is for, and the claim's own job names that run.
    """

    partition: int
    entry: str
    """The id of the stream entry that carries it."""
    key: RunKey
    run: str
    """The id of its run; until the claim, that of the stream entry may stand for it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to write for a run. `attempt` fences off every earlier holder."""

    job: Job
    attempt: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker has taken: what to run, and what is there already."""

    lease: Lease
    revision: int
    pipeline: str
    inputs: bytes
    ended: Mapping[str, StepRecord]
    """The steps that an earlier holder, or an earlier revision, has ended."""
    at_us: int
    """When it was taken, by the store's clock, in microseconds since the epoch."""
    trace: str = ""
    """The W3C trace context of the start that queued it, if that was traced."""
    fresh: bool = False
    """Whether it was started to compute everything anew, whatever is remembered."""
    needed_us: int = 0
    """When it is needed, by the store's clock, if its start declared that and no caller waits."""
    items: Mapping[str, KeptItems] = field(default_factory=dict)
    """The items that an earlier holder has ended, of steps that it has not."""
    since: Mapping[str, int] = field(default_factory=dict)
    """Of steps that settle: when their digest first appeared, in microseconds as `at_us`."""
    awaited: frozenset[str] = frozenset()
    """The steps for which callers wait, or ALL_STEPS."""

    @property
    def step(self) -> str:
        """The only step that it computes, of a step run; empty for a run."""
        return self.lease.job.key.step


ALL_STEPS: Final = "*"
"""Among steps for which callers wait: all of the run's."""


ExpectedRuns = Callable[[], Mapping[str, int]]
"""Returns how long a run of each pipeline takes, in microseconds; without those not known yet."""


Weights = Callable[[], Mapping[str, float]]
"""Returns the share of busy workers that each namespace has beside others; `*` is every other."""


class Spread(NamedTuple):
    """How long something took lately, in microseconds."""

    p50: int
    p90: int
    samples: int
    """Of how many times that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What a worker reports of itself, a few times a lease."""

    name: str
    """Unique among all workers of a store."""
    host: str
    version: str
    pipelines: tuple[str, ...]
    pools: tuple[str, ...] = (DEFAULT_POOL,)
    """Those whose pipelines it runs."""
    slots: int
    """How many runs it works on at most."""
    busy: int
    """How many it works on now."""
    started_us: int
    """When it began to take jobs, by its own clock."""
    durations: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    """How long the steps of each pipeline took lately and, as "", its whole runs."""
