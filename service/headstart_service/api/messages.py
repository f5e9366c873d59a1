"""Writes the domain's values into response messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headstart.v1 import precompute_pb2 as pb

from ..domain import (
    Lack,
    Outcome,
    RunSummary,
    Snapshot,
    Status,
    StepState,
)
from ..pipeline.pipeline import Pipeline
from ..pipeline.runs_on import EXECUTORS
from ..pipeline.signatures import output_schema, output_type
from ..values.fragments import PROTO_REASON, PROTO_STATE, report_fragment, with_estimate
from ..values.output_schemas import finite

STATUS: Final = {
    Status.PENDING: pb.PRECOMPUTE_STATUS_PENDING,
    Status.IN_PROGRESS: pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    Status.COMPLETED: pb.PRECOMPUTE_STATUS_COMPLETED,
    Status.FAILED: pb.PRECOMPUTE_STATUS_FAILED,
    Status.CANCELLED: pb.PRECOMPUTE_STATUS_CANCELLED,
}
_OUTCOME: Final = {
    Outcome.STARTED: pb.START_OUTCOME_STARTED,
    Outcome.JOINED: pb.START_OUTCOME_JOINED,
    Outcome.REUSED: pb.START_OUTCOME_REUSED,
    Outcome.REPLACED: pb.START_OUTCOME_REPLACED,
}
_LACKS: Final = {
    Lack.WORKER: pb.PENDING_REASON_NO_WORKER,
    Lack.POOL: pb.PENDING_REASON_NO_WORKER_FOR_POOL,
    Lack.PIPELINE: pb.PENDING_REASON_NO_WORKER_FOR_PIPELINE,
    Lack.VERSION: pb.PENDING_REASON_NO_WORKER_FOR_VERSION,
}
_EXECUTORS: Final = {
    kind: pb.ExecutorKind.Value(f"EXECUTOR_KIND_{kind.upper()}") for kind in EXECUTORS
}


def outcome(value: Outcome) -> pb.StartOutcome.ValueType:
    """Return a start's outcome as its message's number."""
    return _OUTCOME[value]


def status(value: Status) -> pb.PrecomputeStatus.ValueType:
    """Return a run's status as its message's number."""
    return STATUS[value]


def step_state(value: StepState | None) -> pb.StepState.ValueType:
    """Return a step's state as its message's number."""
    return pb.STEP_STATE_UNSPECIFIED if value is None else PROTO_STATE[value]


def results_bytes(
    snapshot: Snapshot, body: bytes, estimates: Mapping[str, tuple[int, int]] | None = None
) -> bytes:
    """Return a serialized GetResultsResponse: the run's summary, then `body`, its fragments.

    The report of a step with an estimate replaces the one in its fragment.
    """
    head = pb.GetResultsResponse()
    fill_summary(head, snapshot.summary)
    _fill_unserved(head, snapshot.summary)
    pending = [report_fragment(n, s) for n, s in snapshot.states.items() if s is StepState.PENDING]
    estimated = [
        with_estimate(name, snapshot.states[name], snapshot.running.get(name, b""), estimate)
        for name, estimate in (estimates or {}).items()
    ]
    return b"".join((head.SerializeToString(), *pending, body, *estimated))


def watch_bytes(results: bytes) -> bytes:
    """Return a serialized WatchResultsResponse around a serialized GetResultsResponse."""
    return prefix(1, len(results)) + results


def prefix(field: int, size: int) -> bytes:
    """Return what stands before a serialized message of so many bytes as a field, 1 to 15."""
    return bytes((field << 3 | 2,)) + _varint(size)


def status_response(snapshot: Snapshot) -> pb.GetStatusResponse:
    """Return a run's status, and that of each of its steps."""
    response = pb.GetStatusResponse()
    fill_summary(response, snapshot.summary)
    _fill_unserved(response, snapshot.summary)
    for name, state in snapshot.states.items():
        response.steps[name] = PROTO_STATE[state]
    return response


def _fill_unserved(
    message: pb.GetResultsResponse | pb.GetStatusResponse, summary: RunSummary
) -> None:
    """Write the steps of other pools for which there is no worker."""
    for step, pool, lack in summary.unserved_steps:
        message.unserved_steps.add(step=step, pool=pool, reason=_LACKS[lack])


def fill_summary(message: Any, summary: RunSummary) -> None:
    """Write a run's summary into a message that has its fields."""
    message.namespace = summary.key.namespace
    message.key = summary.key.key
    message.pipeline = summary.pipeline
    message.revision = summary.revision
    message.status = STATUS[summary.status]
    message.error = summary.error
    if summary.lacks is not None:
        message.pending_reason = _LACKS[summary.lacks]
    if summary.failure_reason is not None:
        message.failure_reason = PROTO_REASON[summary.failure_reason]
    fill_time(message.created_at, summary.created_us)
    fill_time(message.expires_at, summary.expires_us)
    if summary.started_us:
        fill_time(message.started_at, summary.started_us)
    if summary.completed_us:
        fill_time(message.completed_at, summary.completed_us)


def fill_time(timestamp: Timestamp, microseconds: int) -> None:
    """Write a time in microseconds since the epoch into a message's field."""
    # Three times as fast as Timestamp.FromMicroseconds; every answer has four of them.
    timestamp.seconds, left = divmod(microseconds, 1_000_000)
    timestamp.nanos = left * 1000


def pipeline_description(pipeline: Pipeline) -> pb.PipelineDescription:
    """Return a pipeline as ListPipelines shows it."""
    description = pb.PipelineDescription(
        name=pipeline.name, version=pipeline.version, description=pipeline.description
    )
    for name in pipeline.order:
        step = pipeline.by_name[name]
        message = description.steps.add(
            name=name,
            needs=pipeline.needs(step),
            output_type=output_type(pipeline.codec, step),
            optional_needs=sorted(pipeline.soft_needs(step)),
        )
        for option, value in pipeline.visible(step).items():
            if option == "runs_on":
                message.runs_on = _EXECUTORS[value]
            elif isinstance(field := getattr(message, option), Duration):
                field.FromNanoseconds(round(value * 1e9))
            else:
                setattr(message, option, value)
        if (schema := output_schema(pipeline.codec, step)) is not None:
            json_format.ParseDict(dict(schema), message.output_schema)
    json_format.ParseDict(finite(pipeline.inputs.model_json_schema()), description.input_schema)
    return description


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 1 << 7:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
