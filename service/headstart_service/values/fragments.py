"""Step reports as wire fragments.

Concatenated protobuf messages merge, and a later map entry replaces an earlier one of its name. So
each step's report and result can be a serialized GetResultsResponse of their own, and a whole
answer is those pieces joined. Not every runtime merges, though: `merged` joins them for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from headstart.v1 import precompute_pb2 as pb

from ..domain import FailureReason, Progress, StepState

_LARGE = 64 * 1024
"""Bytes of fragments, and of a field, from which on a text or bytes inside are not parsed."""
_RESULTS = pb.GetResultsResponse.DESCRIPTOR
_FILE = pb.DESCRIPTOR
_CUSTOM = _RESULTS.fields_by_name["custom"].number
_ITEMS = _RESULTS.fields_by_name["items"].number
_DELIMITED = 2
"""The wire type of what has its length before it."""
_VARINT_BITS = 70
PROTO_STATE = {
    StepState.PENDING: pb.STEP_STATE_PENDING,
    StepState.RUNNING: pb.STEP_STATE_RUNNING,
    StepState.COMPLETED: pb.STEP_STATE_COMPLETED,
    StepState.FAILED: pb.STEP_STATE_FAILED,
    StepState.SKIPPED: pb.STEP_STATE_SKIPPED,
}
PROTO_REASON: Final = {
    reason: pb.FailureReason.Value(f"FAILURE_REASON_{reason.name}") for reason in FailureReason
}
REASONS: Final = {number: reason for reason, number in PROTO_REASON.items()}


def report_fragment(
    step: str,
    state: StepState,
    *,
    error: str = "",
    elapsed: float | None = None,
    attempts: int = 0,
    started_us: int = 0,
    origin: pb.StepOrigin.ValueType = pb.STEP_ORIGIN_UNSPECIFIED,
    failure_reason: FailureReason | None = None,
    items: pb.ItemProgress | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Build the piece of GetResultsResponse that reports `step`'s state; `elapsed` in seconds."""
    report = pb.StepReport(
        state=PROTO_STATE[state],
        error=error,
        attempts=attempts,
        started_us=started_us,
        origin=origin,
        items=items,
    )
    if failure_reason is not None:
        report.failure_reason = PROTO_REASON[failure_reason]
    if progress is not None:
        report.progress.message = progress.message
        if progress.fraction is not None:
            report.progress.fraction = progress.fraction
    if elapsed is not None:
        report.elapsed.FromNanoseconds(round(elapsed * 1e9))
    return pb.GetResultsResponse(steps={step: report}).SerializeToString()


def merge_items(whole: pb.GetResultsResponse, large: bytes) -> None:
    """Put the items of a message in order, each once; of `large` fragments read them whole."""
    if large:
        pieces = (piece for number, piece in _pieces(memoryview(large)) if number == _ITEMS)
        items = [pb.ItemResult.FromString(bytes(piece)) for piece in pieces]
    else:
        items = list(whole.items)
    by_place = {(item.step, item.index): item for item in items}
    ordered = [by_place[place] for place in sorted(by_place)]
    whole.ClearField("items")
    whole.items.extend(ordered)


def with_missing_needs(step: str, fragment: bytes, missing: Sequence[str]) -> bytes:
    """Return a step's fragment whose report names the needs that it did without."""
    message = pb.GetResultsResponse.FromString(fragment)
    message.steps[step].missing_needs.extend(missing)
    return message.SerializeToString()


def result_of(fragment: bytes) -> bytes:
    """A step's fragment without its report: equal bytes for equal results in the same order.

    Raises DecodeError.
    """
    message = pb.GetResultsResponse.FromString(fragment)
    message.ClearField("steps")
    return message.SerializeToString(deterministic=True)


def with_estimate(step: str, state: StepState, fragment: bytes, estimate: tuple[int, int]) -> bytes:
    """Return the piece that reports a step as this one does, if it does, with an estimate.

    Raises DecodeError.
    """
    report = pb.GetResultsResponse.FromString(fragment).steps[step]
    report.state = PROTO_STATE[state]
    report.estimate.p50.FromMicroseconds(estimate[0])
    report.estimate.p90.FromMicroseconds(estimate[1])
    return pb.GetResultsResponse(steps={step: report}).SerializeToString()


def started_of(step: str, fragment: bytes) -> int:
    """When the step of this piece began, in microseconds since the epoch. Raises DecodeError."""
    return pb.GetResultsResponse.FromString(fragment).steps[step].started_us


def items_of(step: str, fragment: bytes) -> pb.ItemProgress:
    """How far the step of this piece is with its list; empty if that is not known."""
    return pb.GetResultsResponse.FromString(fragment).steps[step].items


def merged(fragments: bytes, created_us: int = 0) -> bytes | None:
    """Joined fragments as one message with every field once; None if they cannot be read.

    A step that began before `created_us`, when its run was started, was kept from an earlier
    revision, and gets that origin here. Other completed steps without an origin were computed.
    Records hold neither origin: they would be larger for it.

    Of several `results` fields protobuf.js, and so every Node caller, keeps the last alone
    (docs/decisions/0002).
    """
    large = len(fragments) > _LARGE
    try:
        read = _outline(_RESULTS, memoryview(fragments)) if large else fragments
        whole = pb.GetResultsResponse.FromString(read)
    except (DecodeError, UnicodeDecodeError):
        return None
    if large and not whole.HasField("custom"):
        whole = pb.GetResultsResponse.FromString(fragments)
    for report in whole.steps.values():
        if report.state == pb.STEP_STATE_COMPLETED:
            if 0 < report.started_us < created_us:
                report.origin = pb.STEP_ORIGIN_KEPT
            elif report.origin == pb.STEP_ORIGIN_UNSPECIFIED:
                report.origin = pb.STEP_ORIGIN_COMPUTED
    if whole.items:
        merge_items(whole, fragments if large else b"")
    if not (large and whole.HasField("custom")):
        return whole.SerializeToString()
    whole.ClearField("custom")
    artifacts = [piece for number, piece in _pieces(memoryview(fragments)) if number == _CUSTOM]
    size = _varint(sum(map(len, artifacts)))
    return b"".join((whole.SerializeToString(), _CUSTOM_TAG, size, *artifacts))


def _outline(kind: Descriptor, data: memoryview) -> bytes:
    """A message of this kind with large texts and bytes empty: as good to check as the whole.

    Parsing megabytes holds the process's other calls up. Raises DecodeError or UnicodeDecodeError.
    """
    out: list[bytes | memoryview] = []
    for start, body, end, number in _walk(data):
        field = kind.fields_by_number.get(number)
        if end - body <= _LARGE or field is None:
            out.append(data[start:end])
        elif field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
            if field.type == FieldDescriptor.TYPE_STRING:
                str(data[body:end], "utf-8")
            out += (_varint(number << 3 | _DELIMITED), b"\0")
        elif field.message_type is not None and field.message_type.file is _FILE:
            inner = _outline(field.message_type, data[body:end])
            out += (_varint(number << 3 | _DELIMITED), _varint(len(inner)), inner)
        else:
            out.append(data[start:end])
    return b"".join(out)


def _pieces(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Each field's number and content."""
    for _, body, end, number in _walk(data):
        yield number, data[body:end]


def _walk(data: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Where each field, its content and its end are, and its number. Raises DecodeError."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _read_varint(data, at)
        body = at
        match tag & 7:
            case 0:
                _, at = _read_varint(data, at)
            case 1:
                at += 8
            case 2:
                size, body = _read_varint(data, at)
                at = body + size
            case 5:
                at += 4
            case _:
                raise DecodeError("a field's type is none that messages have")
        if at > len(data):
            raise DecodeError("a field ends behind its message")
        yield start, body, at, tag >> 3


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < _VARINT_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the bit that announces more
            return value, at
        shift += 7
    raise DecodeError("a number does not end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_CUSTOM_TAG = _varint(_CUSTOM << 3 | _DELIMITED)
