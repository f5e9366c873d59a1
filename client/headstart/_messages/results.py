"""What the service answers, as plain values.

Every time is an aware `datetime` in UTC, or None when that has not happened. An embedding is a
tuple of floats, of unit length, as long as the server's model makes it (384 by default). Mappings
are plain dicts, so that results can be pickled and copied; treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, overload

from headstart._errors.suggestions import with_suggestion
from headstart._messages.artifacts import Artifact, Json, as_type_of

Embedding: TypeAlias = tuple[float, ...]
T = TypeVar("T")


class PrecomputeStatus(StrEnum):
    """Where a run stands. Each equals its value, so `status == "completed"` holds too."""

    PENDING = "pending"
    """Queued; no worker has taken it yet."""
    IN_PROGRESS = "in_progress"
    """A worker is computing it."""
    COMPLETED = "completed"
    """Ended; every required step has its result, but optional steps may have failed."""
    FAILED = "failed"
    """Ended; a required step failed."""
    CANCELLED = "cancelled"
    """Ended by a caller's cancel."""

    @property
    def ended(self) -> bool:
        """Return whether nothing more will be computed."""
        return self not in {PrecomputeStatus.PENDING, PrecomputeStatus.IN_PROGRESS}


class StepState(StrEnum):
    """Where one step of a run stands."""

    PENDING = "pending"
    """Waits for its inputs, or for a worker."""
    RUNNING = "running"
    """Is being computed."""
    COMPLETED = "completed"
    """Ended; its result is there."""
    FAILED = "failed"
    """Ended without a result."""
    SKIPPED = "skipped"
    """Never ran, because a step that it needs failed."""


class StepOrigin(StrEnum):
    """Where a step's result comes from."""

    COMPUTED = "computed"
    """This run computed it, or it does not exist."""
    KEPT = "kept"
    """An earlier revision of this key did; the step's inputs have not changed since."""
    MEMOISED = "memoised"
    """A run of another key did: the step is memoised."""
    REPORTED = "reported"
    """A caller did, and reported it."""


class StartOutcome(StrEnum):
    """What a start did."""

    STARTED = "started"
    """Queued a new run."""
    JOINED = "joined"
    """Nothing new: the same inputs are being computed already."""
    REUSED = "reused"
    """Nothing new: the same inputs have been computed already."""
    REPLACED = "replaced"
    """Cancelled a run of other inputs under the same key, and queued a new one."""


class RecipientType(StrEnum):
    """The player that answers a bridging game."""

    HUMAN = "human"
    """A person."""
    HAIKU = "haiku"
    """Claude Haiku too: its bridge is computed ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """When a step that has not ended is expected to end, counted from the answer."""

    p50: timedelta
    """In one case of two."""
    p90: timedelta
    """In nine cases of ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """How one step went."""

    state: StepState
    error: str | None
    """Why it failed or was skipped."""
    elapsed: timedelta | None
    """How long all its attempts took together; None until it has ended."""
    attempts: int
    """How often it was tried."""
    estimate: StepEstimate | None = None
    """When it will have ended; None once it has, and while no estimate exists."""
    origin: StepOrigin = StepOrigin.COMPUTED
    """Where its result comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgingResults:
    """What a bridging game needs. A part that does not exist (yet) is None: compute it live."""

    anchor_embedding: Embedding | None
    target_embedding: Embedding | None
    haiku_clues: tuple[str, ...] | None
    """As many words as the start's `clue_count`, by Claude Haiku; None for a human recipient."""
    haiku_embeddings: tuple[Embedding, ...] | None
    """One per clue, in the clues' order."""
    lexical_bridge: tuple[str, ...] | None
    """The `clue_count` vocabulary words of highest relevance, best first."""
    lexical_embeddings: tuple[Embedding, ...] | None
    """One per word of `lexical_bridge`, in its order."""
    null_samples: tuple[float, ...] | None
    """Relevances (-1 to 1) of `null_sample_count` random bridges, ascending; see `percentile`."""
    embedding_model: str | None
    """The model that made every embedding here. Scores of other models' embeddings differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A run and whatever exists of its results, whole or in part."""

    namespace: str
    key: str
    pipeline: str
    revision: int
    """Grows by one each time the key is started anew, or its ended steps are computed anew."""
    status: PrecomputeStatus
    created_at: datetime | None
    started_at: datetime | None
    """When a worker first took it."""
    completed_at: datetime | None
    expires_at: datetime | None
    error: str | None
    """Why the run failed or was cancelled."""
    pending_reason: str | None = None
    """Why no worker takes a pending run, if that is so."""
    steps: Mapping[str, StepReport]
    """By name, one for each step of this run."""
    bridging: BridgingResults | None
    """None when this is a run of another pipeline."""
    custom: Mapping[str, Artifact] | None
    """By step, only of completed steps; None when this is a run of the bridging pipeline."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the names of steps without a result: not ended, failed or skipped."""
        return tuple(
            name for name, report in self.steps.items() if report.state is not StepState.COMPLETED
        )

    @overload
    def artifact(self, step: str) -> Artifact: ...

    @overload
    def artifact(self, step: str, as_type: type[T]) -> T: ...

    def artifact(self, step: str, as_type: Any = None) -> Any:
        """Return a custom pipeline's step, as a pydantic model, list[Model] or other type.

        Any class with `model_validate` will do, `numpy.ndarray`, and the plain types. Raises
        KeyError when the step has no result (yet), TypeError when it is of another type, and what
        the model raises.
        """
        if self.custom is None or step not in self.custom:
            report = self.steps.get(step)
            unknown = with_suggestion(f"is no step of {self.pipeline}", step, self.steps)
            state = f"is {report.state}" if report else unknown
            raise KeyError(f"{step} has no artifact: it {state}")
        return as_type_of(self.custom[step], as_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a start did, and the run that it leads to."""

    namespace: str
    key: str
    outcome: StartOutcome
    status: PrecomputeStatus
    revision: int
    """Pass it as `min_revision` to read no earlier run of this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run without its results."""

    namespace: str
    key: str
    pipeline: str
    revision: int
    status: PrecomputeStatus
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    error: str | None
    """Why the run failed or was cancelled."""
    pending_reason: str | None = None
    """Why no worker takes a pending run, if that is so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(RunSummary):
    """A run without its results, with the state of each step."""

    steps: Mapping[str, StepState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing."""

    runs: tuple[RunSummary, ...]
    next_page_token: str
    """Empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What a cancel did."""

    namespace: str
    key: str
    cancelled: bool
    """Whether this call ended the run.

    False when it had ended before, or when the key has another revision than the requested one.
    """
    status: PrecomputeStatus
    """After the call."""
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A run whose life was prolonged."""

    namespace: str
    key: str
    status: PrecomputeStatus
    revision: int
    expires_at: datetime
    """When it is forgotten, unless it is evicted or started again before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToken:
    """A token that allows its bearer to read one run."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDescription:
    """One step of a pipeline."""

    name: str
    needs: tuple[str, ...]
    """The steps whose results it takes."""
    output_type: str = ""
    """What it returns, as Python writes it: `list[str]`; empty without a return type."""
    required: bool
    """Whether the run fails when this step fails."""
    timeout: timedelta | None
    """How long one attempt may take."""
    max_attempts: int
    runs_on: str = ""
    """Where it runs: "loop", "thread", "process" or "ray"; empty from a service without it."""
    version: str = ""
    """A change of it invalidates this step's results and those of what needs it; may be empty."""
    memo: bool = False
    """Whether its result is reused in runs of other keys of the namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineDescription:
    """A pipeline that the service can run."""

    name: str
    version: str
    description: str
    steps: tuple[StepDescription, ...]
    input_schema: Mapping[str, Json]
    """JSON Schema of the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerWork:
    """How much work met one fate."""

    runs: int
    steps: int
    compute: timedelta
    """The steps' durations, each from its first try to its end."""
    cpu: timedelta
    llm_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHidden:
    """What users of one pipeline did not have to wait for."""

    runs: int
    """Runs that completed and were read."""
    hidden: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of every run that was started, and of its steps' work, each counted once."""

    since: datetime
    starts: int
    """Runs that were queued: `unsettled` and the runs of all `fates`."""
    joined: int
    """Starts that a run under way served, and so are no runs."""
    reused: int
    """Starts that a result which was there served, and so are no runs."""
    unsettled: int
    """Runs of which it is not known yet what becomes of them."""
    hidden: timedelta
    """Computation that users did not wait for.

    Of runs that completed and were read, the part that was over before the first read.
    """
    waited: timedelta
    """From the first read to the end, of runs that were first read before it."""
    fates: Mapping[str, LedgerWork]
    """By used_ready, used_waited, expired, evicted, cancelled, replaced and failed."""
    pipelines: Mapping[str, LedgerHidden]

    @property
    def unread_share(self) -> float:
        """Which part of the settled work's duration was never read, 0 to 1; 0 without any."""
        used = sum((w.compute for f, w in self.fates.items() if f.startswith("used_")), timedelta())
        whole = sum((w.compute for w in self.fates.values()), timedelta())
        return (whole - used) / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How much is kept and running."""

    total_cached: int
    """Everything kept: queued, running and ended."""
    active_tasks: int
    """Runs that a worker is computing."""
    status_counts: Mapping[str, int]
    """By `PrecomputeStatus` or its value; statuses that nothing has are left out."""
    queued_jobs: int
    """Jobs that no worker has taken yet, in all namespaces; with tokens, in one's own."""
    max_cached: int
    """How many runs the server keeps at most."""
    ledger: Ledger | None = None
    """None before the first start, and from a server of a version without one."""
