"""What the service answers, as plain values.

Every time is an aware `datetime` in UTC, or None when that has not happened. An embedding is a
tuple of floats, of unit length, as long as the server's model makes it (384 by default). Mappings
are plain dicts, so that results can be pickled and copied; treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, overload

from headstart._errors.suggestions import with_suggestion
from headstart._messages.artifacts import Artifact, Json, as_type_of
from headstart._messages.durations import StepEstimate
from headstart._messages.failure_reasons import FailureReason
from headstart._messages.items import ItemProgress, ItemResult, items_of, value_as

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

    @property
    def ended(self) -> bool:
        """Whether the step will not change any more in this revision."""
        return self in (StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED)


class PendingReason(StrEnum):
    """Why no worker takes a pending run. The run waits for a worker that does."""

    NO_WORKER = "no_worker"
    """No worker is running."""
    NO_WORKER_FOR_PIPELINE = "no_worker_for_pipeline"
    """No running worker has the run's pipeline."""
    NO_WORKER_FOR_VERSION = "no_worker_for_version"
    """Running workers have the pipeline in another version than the run was started with."""
    NO_WORKER_FOR_POOL = "no_worker_for_pool"
    """No running worker serves the pool that the run's pipeline, or the step, names."""


class StepOrigin(StrEnum):
    """Where a step's result comes from."""

    COMPUTED = "computed"
    """This run computed it."""
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
class StepProgress:
    """How far a running step has come, as it reports itself."""

    fraction: float | None = None
    """The part that is done, 0 to 1; None where that is not known."""
    message: str = ""
    """What the step does now, for people."""


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
    origin: StepOrigin | None = None
    """Where its result comes from; None without a result."""
    progress: StepProgress | None = None
    """How far it has come, if it runs and its author reports that."""
    failure_reason: FailureReason | None = None
    """Why it failed or was skipped, as data; also None if this client is too old to know it."""
    items: ItemProgress | None = None
    """How far it is with its list; None of a step without one, and before that is known."""
    missing_needs: tuple[str, ...] = ()
    """The steps that it can do without and had to."""


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
class UnservedStep:
    """A step of another pool than its run's, for which there is no worker."""

    step: str
    pool: str
    reason: PendingReason | None
    """Why no worker computes it; None if this client is too old to know it."""


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
    failure_reason: FailureReason | None = None
    """Why it failed or was cancelled, as data; also None if this client is too old to know it."""
    pending_reason: PendingReason | None = None
    """Why no worker takes a pending run, if that is so."""
    unserved_steps: tuple[UnservedStep, ...] = ()
    """Its steps of other pools for which there is no worker."""
    steps: Mapping[str, StepReport]
    """By name, one for each step of this run."""
    bridging: BridgingResults | None
    """None when this is a run of another pipeline."""
    custom: Mapping[str, Artifact] | None
    """By step, only of completed steps; None when this is a run of the bridging pipeline."""
    partial_items: Mapping[str, tuple[ItemResult, ...]] = field(default_factory=dict)
    """By step, the items that have ended of steps with a list that have not completed."""
    partials: Mapping[str, str | Sequence[Json]] = field(default_factory=dict)
    """By step, the text or the items that steps which stream have given so far, if the call asked
    for `partial_results`."""

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
            if self.custom is not None and report and report.state is StepState.COMPLETED:
                state += ", and the call's `result_steps` left its value out"
            raise KeyError(f"{step} has no artifact: it {state}")
        return as_type_of(self.custom[step], as_type)

    def items(self, step: str, as_type: Any = None) -> tuple[ItemResult, ...]:
        """Return the items that have ended of a step that runs for each item of a list.

        All of them once it has completed. Values become an `as_type`, as those of `artifact`.
        Raises KeyError when the run has no such step, and TypeError when it has no list of items.
        """
        if step not in self.steps:
            raise KeyError(with_suggestion(f"is no step of {self.pipeline}", step, self.steps))
        if self.custom is not None and step in self.custom:
            found = items_of(self.custom[step])
        else:
            found = self.partial_items.get(step, ())
        return tuple(value_as(item, as_type) for item in found)


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
    failure_reason: FailureReason | None = None
    """Why it failed or was cancelled, as data; also None if this client is too old to know it."""
    pending_reason: PendingReason | None = None
    """Why no worker takes a pending run, if that is so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(RunSummary):
    """A run without its results, with the state of each step."""

    unserved_steps: tuple[UnservedStep, ...] = ()
    """Its steps of other pools for which there is no worker."""
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

    token: str = field(repr=False)
    """A secret: the repr leaves it out, so that no log shows it."""
    expires_at: datetime
