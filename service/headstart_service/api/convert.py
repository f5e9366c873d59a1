"""Translates between messages and the domain; collects every violation of a request."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from headstart._for_service import InputsError, inputs_of
from headstart.v1 import precompute_pb2 as pb

from ..domain import (
    DEFAULT_NAMESPACE,
    Lack,
    Outcome,
    RunKey,
    RunSummary,
    Snapshot,
    Status,
    StepState,
    namespace_violations,
)
from ..domain.errors import InvalidRequest, Violation
from ..pipeline.pipeline import Pipeline
from ..pipeline.signatures import output_type
from ..pipeline.step import VISIBLE_OPTIONS
from ..values.fragments import PROTO_STATE, report_fragment, started_of

M = TypeVar("M", bound=Message)

MIN_TTL: Final = 0.001
MAX_TTL: Final = 7 * 24 * 3600.0
MAX_WAIT: Final = 600.0
MAX_NEED: Final = 7 * 24 * 3600.0
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
MAX_REPEATED: Final = 1000
"""Of a request's list: 4 MB of them would hold up everybody else for seconds."""

_STATUS: Final = {
    Status.PENDING: pb.PRECOMPUTE_STATUS_PENDING,
    Status.IN_PROGRESS: pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    Status.COMPLETED: pb.PRECOMPUTE_STATUS_COMPLETED,
    Status.FAILED: pb.PRECOMPUTE_STATUS_FAILED,
    Status.CANCELLED: pb.PRECOMPUTE_STATUS_CANCELLED,
}
_FROM_STATUS: Final = {number: status for status, number in _STATUS.items()}
_OUTCOME: Final = {
    Outcome.STARTED: pb.START_OUTCOME_STARTED,
    Outcome.JOINED: pb.START_OUTCOME_JOINED,
    Outcome.REUSED: pb.START_OUTCOME_REUSED,
    Outcome.REPLACED: pb.START_OUTCOME_REPLACED,
}
_LACKS: Final = {
    Lack.WORKER: "no worker is running",
    Lack.PIPELINE: "no worker has the pipeline {pipeline}",
    Lack.VERSION: "no worker has this version of the pipeline {pipeline}",
}
_RECIPIENT: Final = {pb.RECIPIENT_TYPE_HUMAN: "human", pb.RECIPIENT_TYPE_HAIKU: "haiku"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WATCH_TAG: Final = b"\x0a"  # WatchResultsResponse.results: field 1, length-delimited


def request_from(kind: type[M], data: bytes) -> M:
    """The request of this kind that `data` is. Raises InvalidRequest."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        rule = f"must be a serialized {kind.DESCRIPTOR.full_name}"
        raise InvalidRequest([Violation("request", rule)]) from error


def run_key(namespace: str, key: str) -> RunKey:
    """The run that a request names; an empty namespace is the default one."""
    return RunKey(namespace or DEFAULT_NAMESPACE, key)


def checked_key(namespace: str, key: str) -> RunKey:
    """As `run_key`. Raises InvalidRequest."""
    found = run_key(namespace, key)
    refuse(found.violations())
    return found


def listed_namespace_violations(namespace: str) -> list[Violation]:
    """The rules that the namespace of a list or a count breaks; empty means all."""
    return namespace_violations(namespace) if namespace else []


def request_id_violations(request_id: str) -> list[Violation]:
    """The rule that the id of a start breaks; empty means that it has none."""
    if not request_id or _REQUEST_ID.fullmatch(request_id):
        return []
    rule = "must be 1 to 64 letters, digits, '.', '_' and '-', or empty"
    return [Violation("request_id", rule)]


def repeated_violations(field: str, values: Sequence[object]) -> list[Violation]:
    """The rule that a list which is too long breaks."""
    if len(values) <= MAX_REPEATED:
        return []
    return [Violation(field, f"must be at most {MAX_REPEATED}, are {len(values)}")]


def revision_violations(field: str, revision: int) -> list[Violation]:
    """Return the rule that a revision of which 0 means any breaks."""
    if revision >= 0:
        return []
    return [Violation(field, f"must be 1 or more, or 0 for any, is {revision}")]


def refuse(violations: Sequence[Violation]) -> None:
    """Raise InvalidRequest if there are violations."""
    if violations:
        raise InvalidRequest(violations)


def seconds(
    message: Any, field: str, low: float, high: float, default: float, into: list[Violation]
) -> float:
    """The duration in `field` of `message`, in seconds, or `default` when absent."""
    if not message.HasField(field):
        return default
    duration: Duration = getattr(message, field)
    value = duration.seconds + duration.nanos / 1e9
    if not low <= value <= high:
        rule = f"must be {low:g} to {high:g} seconds, is {value:g}"
        into.append(Violation(field, rule))
    return value


def bridging_inputs(spec: pb.BridgingSpec) -> dict[str, Any]:
    """A bridging game's inputs as its pipeline takes them."""
    inputs: dict[str, Any] = {"anchor": spec.anchor, "target": spec.target}
    inputs["recipient_type"] = _RECIPIENT.get(spec.recipient_type, "unspecified")
    for name in ("clue_count", "null_sample_count"):
        if spec.HasField(name):
            inputs[name] = getattr(spec, name)
    return inputs


def custom_inputs(spec: pb.CustomSpec) -> dict[str, Any]:
    """Return any pipeline's inputs as plain values. Raises InvalidRequest."""
    try:
        return inputs_of(spec)
    except InputsError as error:
        raise InvalidRequest([Violation(*rule) for rule in error.rules]) from error


def outcome(value: Outcome) -> pb.StartOutcome.ValueType:
    """A start's outcome as its message's number."""
    return _OUTCOME[value]


def status(value: Status) -> pb.PrecomputeStatus.ValueType:
    """A run's status as its message's number."""
    return _STATUS[value]


def step_state(value: StepState | None) -> pb.StepState.ValueType:
    """A step's state as its message's number."""
    return pb.STEP_STATE_UNSPECIFIED if value is None else PROTO_STATE[value]


def statuses(numbers: Sequence[int], into: list[Violation]) -> list[Status]:
    """The statuses that a list is limited to; none given means all."""
    if too_many := repeated_violations("statuses", numbers):
        into += too_many
        return []
    found = []
    for i, number in enumerate(numbers):
        if number in _FROM_STATUS:
            found.append(_FROM_STATUS[pb.PrecomputeStatus.ValueType(number)])
        else:
            into.append(Violation(f"statuses[{i}]", f"is no status: {number}"))
    return list(dict.fromkeys(found)) or list(Status)


def results_bytes(
    snapshot: Snapshot, body: bytes, estimates: Mapping[str, tuple[int, int]] | None = None
) -> bytes:
    """A serialized GetResultsResponse: the head made here, `body` all that the fragments hold.

    Each step that has an estimate is reported with it, which takes the place of its own report.
    """
    head = pb.GetResultsResponse()
    fill_summary(head, snapshot.summary)
    unsaid = [report_fragment(n, s) for n, s in snapshot.states.items() if s is StepState.PENDING]
    estimated = [
        report_fragment(
            name,
            snapshot.states[name],
            started_us=started_of(name, snapshot.running[name]) if name in snapshot.running else 0,
            estimate=estimate,
        )
        for name, estimate in (estimates or {}).items()
    ]
    return b"".join((head.SerializeToString(), *unsaid, body, *estimated))


def watch_bytes(results: bytes) -> bytes:
    """A serialized WatchResultsResponse around a serialized GetResultsResponse."""
    return _WATCH_TAG + _varint(len(results)) + results


def status_response(snapshot: Snapshot) -> pb.GetStatusResponse:
    """A run's status, and that of each of its steps."""
    response = pb.GetStatusResponse()
    fill_summary(response, snapshot.summary)
    for name, state in snapshot.states.items():
        response.steps[name] = PROTO_STATE[state]
    return response


def fill_summary(message: Any, summary: RunSummary) -> None:
    """Write a run's summary into a message that has its fields."""
    message.namespace = summary.key.namespace
    message.key = summary.key.key
    message.pipeline = summary.pipeline
    message.revision = summary.revision
    message.status = _STATUS[summary.status]
    message.error = summary.error
    if summary.lacks is not None:
        message.pending_reason = _LACKS[summary.lacks].format(pipeline=summary.pipeline)
    _fill_time(message.created_at, summary.created_us)
    _fill_time(message.expires_at, summary.expires_us)
    if summary.started_us:
        _fill_time(message.started_at, summary.started_us)
    if summary.completed_us:
        _fill_time(message.completed_at, summary.completed_us)


def _fill_time(timestamp: Timestamp, microseconds: int) -> None:
    # A third of what its own FromMicroseconds takes, four times in every answer.
    timestamp.seconds, left = divmod(microseconds, 1_000_000)
    timestamp.nanos = left * 1000


def pipeline_description(pipeline: Pipeline) -> pb.PipelineDescription:
    """A pipeline as ListPipelines shows it."""
    description = pb.PipelineDescription(
        name=pipeline.name, version=pipeline.version, description=pipeline.description
    )
    for name in pipeline.order:
        step = pipeline.by_name[name]
        message = description.steps.add(
            name=name,
            needs=pipeline.needs(step),
            output_type=output_type(pipeline.codec, step),
        )
        for option in VISIBLE_OPTIONS:
            value = getattr(step, option)
            if isinstance(value, float):
                getattr(message, option).FromNanoseconds(round(value * 1e9))
            else:
                setattr(message, option, value)
    json_format.ParseDict(pipeline.inputs.model_json_schema(), description.input_schema)
    return description


def page_token(last: RunKey, partitions: int) -> str:
    """The token of the page behind `last`, in the order of a store of so many partitions."""
    text = f"{partitions}:{last.namespace}:{last.key}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def from_page_token(token: str, partitions: int, into: list[Violation]) -> RunKey | None:
    """The run that `token` stands behind; None for the first page.

    With another number of partitions the runs have another order: what has been listed would be
    listed again, or left out.
    """
    if not token:
        return None
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    count, _, text = text.partition(":")
    namespace, _, key = text.partition(":")
    found = RunKey(namespace, key)
    if not count.isdecimal() or found.violations():
        into.append(Violation("page_token", "is not a next_page_token of this method"))
    elif count != str(partitions):
        rule = f"is of a store with {count} partitions, now it has {partitions}: list anew"
        into.append(Violation("page_token", rule))
    return found


def page_size(value: int, into: list[Violation]) -> int:
    """How many runs a page may hold."""
    if not 0 <= value <= MAX_PAGE:
        rule = f"must be 1 to {MAX_PAGE}, or 0 for the default, is {value}"
        into.append(Violation("page_size", rule))
    return value or DEFAULT_PAGE


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 1 << 7:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
