"""Runs, their steps and states, and what a start, a read and a report of one give.

Times are microseconds since the Unix epoch, by Redis's clock, and end in `_us`; durations are
seconds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from .errors import Violation
from .failures import FailureReason

DEFAULT_NAMESPACE = "default"
MAX_KEY_BYTES = 256
_NAMESPACE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_POOL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
DEFAULT_POOL: Final = "default"
"""The pool of pipelines that name none."""
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
    """A step's state."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"

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


STEP_RUN: Final = "\x1f"
"""Stands between the key of a run and the step of its step run; no caller's key has it."""


class RunKey(NamedTuple):
    """A caller's name for a run, inside its namespace. A tuple: hashed and compared in C.

    A *step run* computes one step of a run in the step's own pool. Its key is the run's, with the
    step's name behind it.
    """

    namespace: str
    key: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.key.replace(STEP_RUN, ' step ')}"

    @property
    def owner(self) -> RunKey:
        """The run that callers know: this one, or the one that a step run belongs to."""
        return RunKey(self.namespace, self.key.partition(STEP_RUN)[0]) if self.step else self

    @property
    def step(self) -> str:
        """The step of a step run; empty for a run."""
        return self.key.partition(STEP_RUN)[2]

    def step_run(self, step: str) -> RunKey:
        """Return the key of the step run of this run's step."""
        return RunKey(self.namespace, f"{self.key}{STEP_RUN}{step}")

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
    rule = "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-' and ':'"
    return [Violation("namespace", rule)]


def has_control_characters(text: str) -> bool:
    """Whether `text` holds a control, format, surrogate or line-separating character."""
    # Printable text holds none: this check takes a thirtieth of the time, and each call makes it.
    return not text.isprintable() and any(
        unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text
    )


def canonical(value: Any) -> str:
    """`value` as canonical JSON: the same text for equal values."""
    return repr(value) if type(value) is int else _CANONICAL.encode(value)  # repr takes 1 µs less


def digest_of(text: str) -> str:
    """A 128-bit fingerprint of `text`: SHA-256 in 22 base64url characters."""
    fingerprint = hashlib.sha256(text.encode()).digest()[:16]
    return base64.urlsafe_b64encode(fingerprint).decode().rstrip("=")


def digest(value: Any) -> str:
    """The fingerprint of `value`'s canonical JSON."""
    return digest_of(canonical(value))


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
    pools: Mapping[str, str] = field(default_factory=dict)
    """The pool of each step that is in another one than the pipeline."""
    settling: Sequence[str] = ()
    """Those that begin only once their digest has been the same for a while."""


def runs_class(pipeline: str, definition: str) -> str:
    """Name the class of a pipeline's runs: those of one definition, which names the pool too."""
    return f"{pipeline}@{definition}"


def in_pool(definition: str, pool: str) -> str:
    """Return the definition of a pipeline in this pool: the scripts read the pool from it."""
    return definition if pool == DEFAULT_POOL else f"{definition}/{pool}"


def pool_violation(pool: str) -> str:
    """Return the rule that this name of a pool breaks; empty if it breaks none."""
    if _POOL.fullmatch(pool):
        return ""
    return "must be 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends"


class Lack(StrEnum):
    """Why no worker takes a pending run."""

    WORKER = "worker"
    """There is no worker."""
    POOL = "pool"
    """No worker serves its pipeline's pool."""
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
class Touched:
    """The answer to a touch: the run whose life was prolonged."""

    status: Status
    revision: int
    expires_us: int
    """When it expires, in microseconds since the epoch."""


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
    degraded: bool = False
    """Whether it was made without a step that it can do without, or of such a value. Then no later
    revision takes it over: the missing step may have a result there."""


class UnservedStep(NamedTuple):
    """A step that waits for a worker of its pool, while no worker can take it."""

    step: str
    pool: str
    lack: Lack


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
    unserved_steps: tuple[UnservedStep, ...] = ()
    """Its steps of other pools that no worker can take now."""
    failure_reason: FailureReason | None = None
    """Why it failed or was cancelled: `error` as data."""


@dataclass(frozen=True, slots=True)
class RunsPage:
    """A page of a list of runs."""

    runs: Sequence[RunSummary]
    after: RunKey | None
    """The position behind which the next page begins; None on the last page."""


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

    @property
    def read_at(self) -> float:
        """When it was read, in seconds of the store's clock."""
        return self.summary.expires_us / 1e6 - self.lives_for


@dataclass(frozen=True, slots=True)
class Inspection:
    """A run as an onlooker sees it: looking does not count as reading its results."""

    snapshot: Snapshot
    attempt: int
    """How often a worker has taken it."""
    worker: str
    """The worker that has it now; empty if none has."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a report."""

    accepted: bool
    state: StepState | None
    """The step's now; None where the run has no such step."""
