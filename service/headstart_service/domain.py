"""The words of the domain: runs, their states, and what moves between the layers.

Knows neither gRPC nor Redis. Times are microseconds since the Unix epoch, by Redis's clock, and
end in `_us`; durations are seconds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from .errors import Violation

DEFAULT_NAMESPACE = "default"
MAX_KEY_BYTES = 256
_NAMESPACE = re.compile(r"[a-z0-9._-]{1,64}")


class Status(StrEnum):
    """A run's state. The values are what the seed's `status_counts` uses as keys."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will be computed for the run."""
        return self not in (Status.PENDING, Status.IN_PROGRESS)


class StepState(StrEnum):
    """A step's state; each value is the letter that the record keeps in front of its fragment."""

    PENDING = "P"
    RUNNING = "R"
    COMPLETED = "C"
    FAILED = "F"
    SKIPPED = "S"

    @property
    def ended(self) -> bool:
        """Whether the step will not change any more."""
        return self not in (StepState.PENDING, StepState.RUNNING)


class Outcome(StrEnum):
    """What a start did."""

    STARTED = "started"
    JOINED = "joined"
    REUSED = "reused"
    REPLACED = "replaced"


class RunKey(NamedTuple):
    """A caller's name for a run, inside its namespace. A tuple: hashed and compared in C."""

    namespace: str
    key: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.key}"

    def violations(self) -> list[Violation]:
        """The rules that this key breaks."""
        found = namespace_violations(self.namespace)
        size = len(self.key.encode())
        if not 1 <= size <= MAX_KEY_BYTES:
            found.append(Violation("key", f"must be 1 to {MAX_KEY_BYTES} bytes, is {size}"))
        elif has_control_characters(self.key):
            found.append(Violation("key", "must not contain control characters"))
        return found


def namespace_violations(namespace: str) -> list[Violation]:
    """The rules that this namespace breaks."""
    if _NAMESPACE.fullmatch(namespace):
        return []
    rule = "must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-'"
    return [Violation("namespace", rule)]


def has_control_characters(text: str) -> bool:
    """Whether `text` holds a control, format, surrogate or line-separating character."""
    # What is printable holds none; told in a thirtieth of the time, once for every call of the API.
    return not text.isprintable() and any(
        unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text
    )


def digest(value: Any) -> str:
    """A 128-bit fingerprint of `value`'s canonical JSON: SHA-256 in 22 base64url characters."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fingerprint = hashlib.sha256(canonical.encode()).digest()[:16]
    return base64.urlsafe_b64encode(fingerprint).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A validated request to compute: what a start writes and a worker runs."""

    pipeline: str
    inputs: bytes
    """The normalised inputs as JSON."""
    definition: str
    """The pipeline's: a worker computes the run only if it has the same."""
    digest: str
    """Of the pipeline, its version, the versions of its steps here, and all inputs."""
    steps: Mapping[str, str]
    """This run's steps in order, each with the digest of just what it depends on."""


def runs_class(pipeline: str, definition: str) -> str:
    """Name the class of a pipeline's runs: those of one definition."""
    return f"{pipeline}@{definition}"


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


class Lack(StrEnum):
    """Why no worker takes a pending run."""

    WORKER = "worker"
    """There is no worker."""
    PIPELINE = "pipeline"
    """No worker offers its pipeline."""
    VERSION = "version"
    """Workers offer its pipeline with another definition."""


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a start."""

    outcome: Outcome
    status: Status
    revision: int
    trace: str = ""
    """Of a start that joined and was traced itself: the W3C trace context that the run carries."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to a cancel."""

    cancelled: bool
    status: Status
    revision: int


@dataclass(frozen=True, slots=True)
class StepWork:
    """What a step cost, all its tries together."""

    elapsed: float
    """Seconds from its first try to its end."""
    cpu_seconds: float = 0.0
    llm_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as the record keeps it.

    `fragment` is a serialized piece of GetResultsResponse: the step's report and, once it is
    completed, its results.
    """

    name: str
    state: StepState
    fragment: bytes
    work: StepWork | None = None
    """What it cost, for the ledger; the record does not keep it. None for what nothing ran for."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run without its results."""

    key: RunKey
    pipeline: str
    revision: int
    status: Status
    created_us: int
    started_us: int
    completed_us: int
    expires_us: int
    error: str
    lacks: Lack | None = None
    """Of a pending run: why no worker can take it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run with everything that exists of its results, as one atomic read saw it."""

    summary: RunSummary
    run: str
    """The run's id: each start makes one that no other has, whatever the store has lost."""
    states: Mapping[str, StepState]
    """Each of the run's steps, in the pipeline's order."""
    body: bytes
    """The fragments of all steps that have one, joined."""
    lives_for: float
    """Seconds until it expires, at the time of the read."""
    running: Mapping[str, bytes] = field(default_factory=dict)
    """The fragments of the steps that run, which `body` has too."""
    ahead: int | None = None
    """Of a run that is queued: how many are before it in its partition."""


@dataclass(frozen=True, slots=True)
class Look:
    """A run as an onlooker sees it: looking does not count as reading its results."""

    snapshot: Snapshot
    attempt: int
    """How often a worker has taken it."""
    worker: str
    """Who has it now; empty when nobody does."""


class EventKind(StrEnum):
    """What happened to a run."""

    STARTED = "started"
    CLAIMED = "claimed"
    STEP = "step"
    """Steps ended."""
    REPORTED = "reported"
    """A caller reported the results of steps."""
    RELEASED = "released"
    UNSERVED = "unserved"
    """A worker set the run aside, because it does not offer what the run needs."""
    ENDED = "ended"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    """The store removed the run to make room."""

    @property
    def ends_run(self) -> bool:
        """Whether the run computes nothing more."""
        return self in (EventKind.ENDED, EventKind.CANCELLED)

    @property
    def outdates_results(self) -> bool:
        """Whether results that were read before it are of no more use."""
        return self in (EventKind.STARTED, EventKind.CANCELLED, EventKind.DROPPED)

    @property
    def ends_steps(self) -> bool:
        """Whether the event names steps that have a result now."""
        return self in (EventKind.STEP, EventKind.REPORTED)


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something that happened to a run: what waiters wake up for and caches drop."""

    kind: EventKind
    key: RunKey
    run: str
    """The run's id; empty with DROPPED when it is not known."""
    steps: tuple[str, ...] = ()
    """With STEP and REPORTED: the steps that ended; with UNSERVED: the run's class."""
    replaced: str = ""
    """With STARTED: the id of the key's run before it; empty if there was none."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The run with this id is not wanted any more."""

    key: RunKey
    run: str
    replaced: bool = False
    """Whether another run of the key has replaced it, which may need the same steps."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A pending run of a definition that no worker offers and no API process starts any more."""

    key: RunKey
    run: str
    pipeline: str
    inputs: bytes


@dataclass(frozen=True, slots=True)
class Unserved:
    """A worker has left a run of this class for workers that offer it."""

    partition: int
    runs_class: str


@dataclass(frozen=True, slots=True)
class Reported:
    """Callers have handed in results of these steps of a run: nobody need compute them any more."""

    key: RunKey
    run: str
    """The run's id."""
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a report."""

    accepted: bool
    state: StepState | None
    """The step's now; None where the run has no such step."""


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery of a ticket for a queued run to a worker.

    Until it is claimed, `key` and `run` are those of the start that queued it; which run it is for
    is settled by the claim, and is what the claim's own job names.
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


class Spread(NamedTuple):
    """How long something took lately, in microseconds."""

    p50: int
    p90: int
    samples: int
    """Of how many times that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What a worker says of itself, a few times a lease."""

    name: str
    """Unique among all workers of a store."""
    host: str
    version: str
    pipelines: tuple[str, ...]
    slots: int
    """How many runs it works on at most."""
    busy: int
    """How many it works on now."""
    started_us: int
    """When it began to take jobs, by its own clock."""
    durations: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    """How long the steps of each pipeline took lately and, as "", its whole runs."""


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
        """Whether somebody has read it."""
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

    Of a run that completed and was read, max(0, min(first read, completed) - started): what of its
    computation was over before the first read came, so its whole duration for one that was ready.
    That is the duration minus the wait of a reader who stays until the end. One who does not has
    waited for less, so more was hidden. Time in the queue hides nothing, and takes nothing away.
    """
    waited: float
    """Seconds from the first read to the end, of runs that were first read before their end."""
    fates: Mapping[Fate, Work]
    pipelines: Mapping[str, Hidden]


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
    """Of the queued jobs, those for runs that workers have met and do not offer, by pipeline."""
