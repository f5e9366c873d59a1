"""Builds requests from plain arguments.

Rules about values are the server's, which names every violation at once. Refused here, and in the
same way, is only what cannot be put on the wire at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from headstart._artifacts import Json
from headstart._errors import InvalidRequest, Violation
from headstart._inputs import InputsError, write_inputs
from headstart._results import PrecomputeStatus, RecipientType
from headstart.v1 import precompute_pb2 as pb

# What google.protobuf.Duration can hold: about 10,000 years either way.
_LONGEST_SECONDS: Final = 315_576_000_000
_REQUEST_ID_BYTES: Final = 12

_RECIPIENTS: Final = {
    RecipientType.HUMAN: pb.RECIPIENT_TYPE_HUMAN,
    RecipientType.HAIKU: pb.RECIPIENT_TYPE_HAIKU,
}

_STATUSES: Final = {
    PrecomputeStatus.PENDING: pb.PRECOMPUTE_STATUS_PENDING,
    PrecomputeStatus.IN_PROGRESS: pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    PrecomputeStatus.COMPLETED: pb.PRECOMPUTE_STATUS_COMPLETED,
    PrecomputeStatus.FAILED: pb.PRECOMPUTE_STATUS_FAILED,
    PrecomputeStatus.CANCELLED: pb.PRECOMPUTE_STATUS_CANCELLED,
}


def start_bridging(
    namespace: str,
    key: str,
    anchor: str,
    target: str,
    recipient_type: RecipientType | str,
    *,
    clue_count: int | None,
    null_sample_count: int | None,
    ttl: float | timedelta | None,
    restart: bool,
    request_id: str | None,
    expected_need_in: float | timedelta | None,
) -> pb.StartPrecomputeRequest:
    """Build the start of a bridging game."""
    try:
        recipient = RecipientType(recipient_type)
    except ValueError:
        expected = " or ".join(repr(each.value) for each in RecipientType)
        raise _invalid(
            "bridging.recipient_type", f"must be {expected}, not {recipient_type!r}"
        ) from None
    return pb.StartPrecomputeRequest(
        namespace=namespace,
        key=key,
        bridging=pb.BridgingSpec(
            anchor=anchor,
            target=target,
            recipient_type=_RECIPIENTS[recipient],
            clue_count=clue_count,
            null_sample_count=null_sample_count,
        ),
        ttl=_duration("ttl", ttl),
        restart=restart,
        request_id=_request_id(request_id, restart=restart),
        expected_need_in=_duration("expected_need_in", expected_need_in),
    )


def start(
    namespace: str,
    key: str,
    pipeline: str,
    inputs: Mapping[str, Json],
    *,
    ttl: float | timedelta | None,
    restart: bool,
    request_id: str | None,
    expected_need_in: float | timedelta | None,
) -> pb.StartPrecomputeRequest:
    """Build the start of any pipeline."""
    try:
        spec = pb.CustomSpec(pipeline=pipeline, inputs_json=write_inputs(inputs))
    except InputsError as error:
        violations = [Violation(*rule) for rule in error.rules]
        raise InvalidRequest("refused before sending", violations) from error
    return pb.StartPrecomputeRequest(
        namespace=namespace,
        key=key,
        custom=spec,
        ttl=_duration("ttl", ttl),
        restart=restart,
        request_id=_request_id(request_id, restart=restart),
        expected_need_in=_duration("expected_need_in", expected_need_in),
    )


def cancel(namespace: str, key: str, *, revision: int) -> pb.CancelPrecomputeRequest:
    """Build a cancel; with revision 0 of whatever run the key has."""
    return pb.CancelPrecomputeRequest(namespace=namespace, key=key, revision=revision)


def get_results(
    namespace: str, key: str, *, wait: float, required_steps: Iterable[str], min_revision: int
) -> pb.GetResultsRequest:
    """Build a read; `wait` in seconds, as `seconds()` gives it."""
    return pb.GetResultsRequest(
        namespace=namespace,
        key=key,
        wait=_duration("wait", wait) if wait else None,
        required_steps=required_steps,
        min_revision=min_revision,
    )


def list_precomputes(
    namespace: str,
    *,
    page_size: int,
    page_token: str,
    statuses: Iterable[PrecomputeStatus | str],
) -> pb.ListPrecomputesRequest:
    """Build the request for one page of a listing."""
    numbers = []
    for status in statuses:
        try:
            numbers.append(_STATUSES[PrecomputeStatus(status)])
        except ValueError:
            expected = ", ".join(PrecomputeStatus)
            raise _invalid("statuses", f"must be of {expected}, not {status!r}") from None
    return pb.ListPrecomputesRequest(
        namespace=namespace, page_size=page_size, page_token=page_token, statuses=numbers
    )


def seconds(field: str, value: float | timedelta) -> float:
    """Return a duration in seconds, refusing what protobuf's Duration cannot hold."""
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    # Written so that NaN, which compares false with everything, is refused too.
    if not -_LONGEST_SECONDS <= number <= _LONGEST_SECONDS:
        raise _invalid(field, f"must be a number of seconds, not {number}")
    return number


def _duration(field: str, value: float | timedelta | None) -> Duration | None:
    if value is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds(field, value) * 1e9))
    return duration


def _request_id(given: str | None, *, restart: bool) -> str:
    """Return the id of a start. A restart gets a random one: gRPC may send it several times.

    Every other start can be repeated without harm.
    """
    if given is None and restart:
        return secrets.token_urlsafe(_REQUEST_ID_BYTES)
    return given or ""


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest("refused before sending", [Violation(field, description)])
