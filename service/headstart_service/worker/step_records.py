"""Builds the records of steps: the result, a wire fragment, and the report behind it."""

from __future__ import annotations

from ..domain import FailureReason, Progress, StepRecord, StepState
from ..values.fragments import report_fragment
from .worker_observer import StepOutcome


def step_record(
    name: str,
    state: StepState,
    result: bytes = b"",
    elapsed: float | None = None,
    attempts: int = 0,
    error: str = "",
    started_us: int = 0,
    failure_reason: FailureReason | None = None,
    progress: Progress | None = None,
) -> StepRecord:
    """Build a step's record: its result, a wire fragment, and its report. `elapsed` in seconds."""
    report = report_fragment(
        name,
        state,
        error=error,
        failure_reason=failure_reason,
        elapsed=elapsed,
        attempts=attempts,
        started_us=started_us,
        progress=progress,
    )
    return StepRecord(name, state, result + report)


def failed_record(name: str, elapsed: float, outcome: StepOutcome, started_us: int) -> StepRecord:
    """Build the record of a failed step."""
    return step_record(
        name,
        StepState.FAILED,
        b"",
        elapsed,
        outcome.attempts,
        outcome.error,
        started_us,
        outcome.failure_reason,
    )
