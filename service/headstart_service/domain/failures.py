"""Why steps and runs end without a result: data for callers, beside the texts for people."""

from __future__ import annotations

from enum import StrEnum


class FailureReason(StrEnum):
    """Why a step or a run has no result. The values are what records keep."""

    STEP_FAILED = "step_failed"
    """The step gave up for a reason of its own."""
    TIMED_OUT = "timed_out"
    """An attempt took longer than the step's timeout."""
    QUEUE_TIMED_OUT = "queue_timed_out"
    """No thread, process or permit of a provider became free for the step in time."""
    BLOCKED = "blocked"
    """The step blocked the worker's event loop."""
    WORKER_LOST = "worker_lost"
    """Of a step: its process or node of Ray was lost. Of a run: too many of its workers were."""
    SHED = "shed"
    """The run could not be ready in time, and made room in a full queue."""
    TOO_LARGE = "too_large"
    """The result is larger than a step's, or a run's, may be."""
    WRONG_TYPE = "wrong_type"
    """The result is not of the step's type, or cannot be encoded."""
    NOT_OFFERED = "not_offered"
    """No worker offers what the run needs. No run ends so: it waits. The contract has the value."""
    CANCELLED = "cancelled"
    """A caller has cancelled the run."""
    DEPENDENCY_AWAY = "dependency_away"
    """A service that the step calls was away, or refused for now."""
    OVER_BUDGET = "over_budget"
    """The namespace has used up what its steps may spend today; no call was made."""
    INTERNAL = "internal"
    """A fault of the pipeline or of the service; the log has it."""
    NEED_FAILED = "need_failed"
    """The step was skipped: a step that it needs has no result."""
    RUN_FAILED = "run_failed"
    """The step was skipped: a required step of its run failed first."""
    RECORD_DAMAGED = "record_damaged"
    """Another program has changed what the store keeps of the run."""
