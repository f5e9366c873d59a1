"""Why a step, an item of one or a run has no result."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from headstart.v1 import precompute_pb2 as pb


class FailureReason(StrEnum):
    """Why a step or a run has no result; `error` beside it is the same for people."""

    STEP_FAILED = "step_failed"
    """The step gave up for a reason of its own."""
    TIMED_OUT = "timed_out"
    """An attempt took longer than the step's timeout."""
    QUEUE_TIMED_OUT = "queue_timed_out"
    """No thread or process of the worker, or permit of a provider, became free in time."""
    BLOCKED = "blocked"
    """The step blocked the worker's event loop."""
    WORKER_LOST = "worker_lost"
    """Of a step: its process or node of Ray was lost. Of a run: three of its workers were."""
    SHED = "shed"
    """The run could not be ready by its `expected_need_in`, and made room in a full queue."""
    TOO_LARGE = "too_large"
    """The result is larger than a step's, or a run's, may be."""
    WRONG_TYPE = "wrong_type"
    """The result is not of the step's type, or cannot be encoded."""
    NOT_OFFERED = "not_offered"
    """No worker offers what the run needs. Reserved: a run waits, with a `PendingReason`."""
    CANCELLED = "cancelled"
    """A caller has cancelled the run."""
    DEPENDENCY_AWAY = "dependency_away"
    """A service that the step calls, such as a model's API, was away or refused for now."""
    INTERNAL = "internal"
    """A fault of the pipeline or of the service; its log has the id in `error`."""
    NEED_FAILED = "need_failed"
    """The step was skipped: a step that it needs has no result."""
    RUN_FAILED = "run_failed"
    """The step was skipped: a required step of its run failed first."""
    RECORD_DAMAGED = "record_damaged"
    """Another program has changed what the store keeps of the run."""
    OVER_BUDGET = "over_budget"
    """The run's namespace has used up what its steps may spend until midnight UTC."""


FAILURE_REASONS: Final[Mapping[int, FailureReason]] = {
    pb.FailureReason.Value(f"FAILURE_REASON_{reason.name}"): reason for reason in FailureReason
}
