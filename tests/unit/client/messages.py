"""Messages that tests let the fake service answer with."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from headstart.v1 import precompute_pb2 as pb

PENDING, RUNNING = pb.STEP_STATE_PENDING, pb.STEP_STATE_RUNNING
CREATED = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)


def report(state: int = pb.STEP_STATE_COMPLETED, error: str = "") -> pb.StepReport:
    step = pb.StepReport(state=state, error=error, attempts=1)  # type: ignore[arg-type]
    if state == pb.STEP_STATE_COMPLETED:
        step.elapsed.FromMilliseconds(1500)
    return step


def run(status: int = pb.PRECOMPUTE_STATUS_COMPLETED, **fields: Any) -> pb.GetResultsResponse:
    message = pb.GetResultsResponse(
        namespace="default",
        key="game-1",
        pipeline="bridging",
        revision=3,
        status=status,  # type: ignore[arg-type]
        **fields,
    )
    message.created_at.FromDatetime(CREATED)
    return message


STARTED = pb.StartPrecomputeResponse(
    namespace="default",
    key="game-1",
    outcome=pb.START_OUTCOME_REPLACED,
    status=pb.PRECOMPUTE_STATUS_PENDING,
    revision=4,
)


def values(pending: dict[str, pb.StepReport] | None = None, **ready: Any) -> pb.GetResultsResponse:
    """A run under way: what is ready, as JSON text, and what is not."""
    message = run(
        status=pb.PRECOMPUTE_STATUS_IN_PROGRESS if pending else pb.PRECOMPUTE_STATUS_COMPLETED,
        steps={name: report() for name in ready} | (pending or {}),
        custom=pb.CustomResults(),
    )
    message.pipeline = "text"
    for name, value in ready.items():
        message.custom.artifacts[name].json = json.dumps(value)
    return message


def expected(p50: float, p90: float, state: pb.StepState.ValueType = RUNNING) -> pb.StepReport:
    expected_step = pb.StepReport(state=state)
    expected_step.estimate.p50.FromTimedelta(timedelta(seconds=p50))
    expected_step.estimate.p90.FromTimedelta(timedelta(seconds=p90))
    return expected_step
