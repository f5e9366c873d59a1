"""Steps of other pools: their results come from step runs, which workers of those pools compute.

A step run is queued, claimed and renewed as a run is. Its end reports the step to the run that it
belongs to, so the runner receives it as it receives what callers report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ..domain import Claim, FailureReason, StepRecord, StepState
from ..pipeline.pipeline import Pipeline
from ..pipeline.step import Step
from ..values.fragments import PROTO_REASON, report_fragment
from .ports import StepRuns

AGAIN: Final = 10.0
"""Seconds after which a step run is looked for again: its report may have been missed."""
_LOST: Final = "worker lost: in each try it ended, was blocked or lost Redis"
_REASONS: Final = {number: reason for reason, number in PROTO_REASON.items()}


class StepsElsewhere:
    """Has the steps computed that this worker's pools do not run."""

    def __init__(
        self, step_runs: StepRuns, serves: Callable[[str], bool], *, again: float = AGAIN
    ) -> None:
        """Queue them in `step_runs`; `serves` returns whether this worker serves a pool."""
        self._step_runs = step_runs
        self._serves = serves
        self._again = again

    def computes(self, pipeline: Pipeline, step: Step) -> bool:
        """Return whether workers of another pool compute this step."""
        return not self._serves(pipeline.pool_of(step))

    async def report(
        self,
        claim: Claim,
        step: Step,
        digest: str,
        needs: Sequence[str],
        reported: Callable[[Sequence[str]], None],
    ) -> None:
        """Have a step of the run computed elsewhere until this is cancelled.

        Calls `reported` if the step has ended and no report of it has arrived. Raises LeaseLost and
        StoreUnavailable.
        """
        lost = failed(step.name, _LOST, FailureReason.WORKER_LOST).fragment
        while True:
            if await self._step_runs.has_ended(claim.lease, step.name, digest, needs, lost):
                reported([step.name])
            await asyncio.sleep(self._again)


def failed(step: str, error: str, reason: FailureReason) -> StepRecord:
    """Return the record of a step that failed before its executor gave anything."""
    fragment = report_fragment(step, StepState.FAILED, error=error, failure_reason=reason)
    return StepRecord(step, StepState.FAILED, fragment)


def failure_in(record: StepRecord) -> tuple[str, FailureReason] | None:
    """Return why a reported step failed; None if it did not."""
    if record.state is StepState.COMPLETED:
        return None
    report = pb.GetResultsResponse.FromString(record.fragment).steps[record.name]
    return report.error, _REASONS.get(report.failure_reason, FailureReason.INTERNAL)
