"""Builds requests from plain arguments.

Rules about values are the server's, which names every violation at once. Refused here, and in the
same way, is only what cannot be put on the wire at all. An argument of a wrong type is a TypeError
that names it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Final

from google.protobuf.duration_pb2 import Duration

from headstart._errors import InvalidRequest, Violation
from headstart._errors.suggestions import not_one_of, with_suggestion
from headstart._messages import arguments
from headstart._messages.artifacts import Json
from headstart._messages.inputs import InputsError, write_inputs
from headstart._messages.results import PrecomputeStatus, RecipientType
from headstart.v1 import precompute_pb2 as pb

# What google.protobuf.Duration can hold: about 10,000 years either way.
_LONGEST_SECONDS: Final = 315_576_000_000
_REQUEST_ID_BYTES: Final = 12
_BITS_32: Final = 32
_BITS_64: Final = 64
_UNSENT: Final = "refused before sending"

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
    recipient_type: RecipientType | str | Enum,
    *,
    clue_count: int | None,
    null_sample_count: int | None,
    ttl: float | timedelta | None,
    restart: bool,
    request_id: str | None = None,
    expected_need_in: float | timedelta | None,
) -> pb.StartPrecomputeRequest:
    """Build the start of a bridging game."""
    return pb.StartPrecomputeRequest(
        namespace=namespace,
        key=text("key", key),
        bridging=pb.BridgingSpec(
            anchor=text("anchor", anchor, "bridging.anchor"),
            target=text("target", target, "bridging.target"),
            recipient_type=_recipient(recipient_type),
            clue_count=_count("clue_count", clue_count),
            null_sample_count=_count("null_sample_count", null_sample_count),
        ),
        ttl=duration("ttl", ttl),
        restart=arguments.flag("restart", restart),
        request_id=_request_id(request_id, restart=restart),
        expected_need_in=duration("expected_need_in", expected_need_in),
    )


def start(
    namespace: str,
    key: str,
    pipeline: str,
    inputs: Mapping[str, Json],
    *,
    ttl: float | timedelta | None,
    restart: bool,
    request_id: str | None = None,
    expected_need_in: float | timedelta | None,
) -> pb.StartPrecomputeRequest:
    """Build the start of any pipeline."""
    name = text("pipeline", pipeline, "custom.pipeline")
    arguments.mapping("inputs", inputs, "names to JSON values")
    try:
        spec = pb.CustomSpec(pipeline=name, inputs_json=write_inputs(inputs))
    except InputsError as error:
        violations = [Violation(*rule) for rule in error.rules]
        raise InvalidRequest(_UNSENT, violations) from None
    return pb.StartPrecomputeRequest(
        namespace=namespace,
        key=text("key", key),
        custom=spec,
        ttl=duration("ttl", ttl),
        restart=arguments.flag("restart", restart),
        request_id=_request_id(request_id, restart=restart),
        expected_need_in=duration("expected_need_in", expected_need_in),
    )


def cancel(namespace: str, key: str, *, revision: int) -> pb.CancelPrecomputeRequest:
    """Build a cancel; with revision 0 of whatever run the key has."""
    return pb.CancelPrecomputeRequest(
        namespace=namespace, key=text("key", key), revision=whole("revision", revision, _BITS_64)
    )


def delete(namespace: str, key: str, *, revision: int) -> pb.DeletePrecomputeRequest:
    """Build a deletion; with revision 0 of whatever run the key has."""
    return pb.DeletePrecomputeRequest(
        namespace=namespace, key=text("key", key), revision=whole("revision", revision, _BITS_64)
    )


def touch(
    namespace: str, key: str, *, ttl: float | timedelta | None, revision: int
) -> pb.TouchPrecomputeRequest:
    """Build a touch; with revision 0 of whatever run the key has."""
    return pb.TouchPrecomputeRequest(
        namespace=namespace,
        key=text("key", key),
        ttl=duration("ttl", ttl),
        revision=whole("revision", revision, _BITS_64),
    )


def create_run_token(
    namespace: str, key: str, *, ttl: float | timedelta | None
) -> pb.CreateRunTokenRequest:
    """Build the request for a token for one run."""
    return pb.CreateRunTokenRequest(
        namespace=namespace, key=text("key", key), ttl=duration("ttl", ttl)
    )


def get_results(
    namespace: str,
    key: str,
    *,
    wait: float,
    required_steps: Iterable[str],
    result_steps: Iterable[str] = (),
    min_revision: int,
    partial_results: bool = False,
) -> pb.GetResultsRequest:
    """Build a read; `wait` in seconds, as `seconds()` gives it."""
    return pb.GetResultsRequest(
        namespace=text("namespace", namespace),
        key=text("key", key),
        wait=duration("wait", wait) if wait else None,
        required_steps=texts("required_steps", required_steps),
        result_steps=texts("result_steps", result_steps),
        min_revision=whole("min_revision", min_revision, _BITS_64),
        partial_results=arguments.flag("partial_results", partial_results),
    )


def get_many(
    namespace: str,
    keys: Iterable[str],
    *,
    wait: float,
    required_steps: Iterable[str],
    result_steps: Iterable[str],
    min_ready: int,
) -> pb.BatchGetResultsRequest:
    """Build a read of many runs; `wait` in seconds, as `seconds()` gives it."""
    return pb.BatchGetResultsRequest(
        namespace=text("namespace", namespace),
        keys=texts("keys", keys),
        wait=duration("wait", wait) if wait else None,
        required_steps=texts("required_steps", required_steps),
        result_steps=texts("result_steps", result_steps),
        min_ready=whole("min_ready", min_ready, _BITS_32),
    )


def watch_many(
    namespace: str, keys: Iterable[str], *, result_steps: Iterable[str]
) -> pb.WatchResultsRequest:
    """Build a watch of many runs."""
    return pb.WatchResultsRequest(
        namespace=text("namespace", namespace),
        keys=texts("keys", keys),
        result_steps=texts("result_steps", result_steps),
    )


def list_precomputes(
    namespace: str,
    *,
    page_size: int,
    page_token: str,
    statuses: Iterable[PrecomputeStatus | str],
    key_prefix: str,
    pipeline: str,
) -> pb.ListPrecomputesRequest:
    """Build the request for one page of a listing."""
    numbers = []
    violations = []
    for place, status in enumerate(arguments.texts("statuses", statuses)):
        if status in _STATUSES:
            numbers.append(_STATUSES[PrecomputeStatus(status)])
        else:
            rule = not_one_of(status, list(PrecomputeStatus))
            violations.append(Violation(f"statuses[{place}]", rule))
    if violations:
        raise InvalidRequest(_UNSENT, violations)
    return pb.ListPrecomputesRequest(
        namespace=namespace,
        page_size=whole("page_size", page_size, _BITS_32),
        page_token=text("page_token", page_token),
        statuses=numbers,
        key_prefix=text("key_prefix", key_prefix),
        pipeline=text("pipeline", pipeline),
    )


def text(name: str, value: str, field: str | None = None) -> str:
    """Return a text that can be sent as `field`, by default the field `name`.

    Raises TypeError for what is none, and InvalidRequest for one that UTF-8 does not have.
    """
    checked = arguments.text(name, value)
    try:
        checked.encode()
    except UnicodeEncodeError:
        raise _invalid(field or name, "must be Unicode text, has a lone surrogate") from None
    return checked


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Return texts that can be sent; raises as `text`."""
    found = enumerate(arguments.texts(name, values))
    return [text(f"{name}[{place}]", each) for place, each in found]


def whole(name: str, value: int, bits: int, field: str | None = None) -> int:
    """Return an int that fits. Raises TypeError for what is none, and InvalidRequest."""
    number = arguments.whole(name, value)
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise _invalid(field or name, f"must fit into {bits} bits, is {_shown(number)}")
    return number


def seconds(field: str, value: float | timedelta) -> float:
    """Return a duration in seconds, refusing what protobuf's Duration cannot hold."""
    number = arguments.seconds(field, value)
    # Written so that NaN, which compares false with everything, is refused too.
    if not -_LONGEST_SECONDS <= number <= _LONGEST_SECONDS:
        raise _invalid(field, f"must be a number of seconds, not {number}")
    return number


def duration(field: str, value: float | timedelta | None) -> Duration | None:
    """Return a duration that can be sent, or None. Raises TypeError and InvalidRequest."""
    number = arguments.optional_seconds(field, value)
    if number is None:
        return None
    message = Duration()
    message.FromNanoseconds(round(seconds(field, number) * 1e9))
    return message


def _request_id(given: str | None, *, restart: bool) -> str:
    """Return the id of a start. A restart gets a random one: gRPC may send it several times.

    Every other start can be repeated without harm.
    """
    if arguments.optional_text("request_id", given) is None and restart:
        return secrets.token_urlsafe(_REQUEST_ID_BYTES)
    return "" if given is None else text("request_id", given)


def _count(name: str, value: int | None) -> int | None:
    number = arguments.optional_whole(name, value)
    return None if number is None else whole(name, number, _BITS_32, f"bridging.{name}")


def _recipient(value: RecipientType | str | Enum) -> pb.RecipientType.ValueType:
    """Return a recipient's number, also for a member of another enumeration of that value."""
    name = value.value if isinstance(value, Enum) else value
    if not isinstance(name, str):
        allowed = "'human', 'haiku', or an enumeration's member with such a value"
        arguments.wrong_type("recipient_type", value, allowed)
    if name in _RECIPIENTS:
        return _RECIPIENTS[RecipientType(name)]
    expected = " or ".join(repr(each.value) for each in RecipientType)
    rule = with_suggestion(f"must be {expected}, not {name!r}", name, list(RecipientType))
    raise _invalid("bridging.recipient_type", rule)


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(_UNSENT, [Violation(field, description)])


def _shown(number: int) -> str:
    # Python refuses to spell integers of thousands of digits.
    return str(number) if number.bit_length() < _BITS_64 * 2 else f"about 2^{number.bit_length()}"
