"""The rules that several methods share for the fields of their requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from ..domain import DEFAULT_NAMESPACE, RunKey, namespace_violations
from ..domain.errors import InvalidRequest, Violation

M = TypeVar("M", bound=Message)

MIN_TTL: Final = 0.001
MAX_TTL: Final = 7 * 24 * 3600.0
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
MAX_REPEATED: Final = 1000
"""Entries of a request's list: parsing 4 MB of them would delay every other call for seconds."""


def request_from(kind: type[M], data: bytes) -> M:
    """Return the request that `data` holds. Raises InvalidRequest."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        rule = f"must be a serialized {kind.DESCRIPTOR.full_name}"
        raise InvalidRequest([Violation("request", rule)]) from error


def run_key(request: Any) -> RunKey:
    """Return the run that a request names, unchecked; an empty namespace is the default one."""
    return RunKey(request.namespace or DEFAULT_NAMESPACE, request.key)


def namespace_of(request: Any) -> str:
    """Return the namespace of a request about one run."""
    return request.namespace or DEFAULT_NAMESPACE


def checked_key(request: Any, into: list[Violation]) -> RunKey:
    """Return the run that a request names; append the rules that its name breaks to `into`."""
    found = run_key(request)
    into += found.violations()
    return found


def listed_namespace_violations(namespace: str) -> list[Violation]:
    """Return the rules that the namespace of a list or a count breaks; empty means all."""
    return namespace_violations(namespace) if namespace else []


def repeated_violations(field: str, values: Sequence[object]) -> list[Violation]:
    """Return the rule that a list with too many entries breaks."""
    if len(values) <= MAX_REPEATED:
        return []
    return [Violation(field, f"must be at most {MAX_REPEATED}, are {len(values)}")]


def batch_violations(field: str, items: Sequence[object]) -> list[Violation]:
    """Return the rule that the number of a batch's items breaks."""
    if 1 <= len(items) <= MAX_REPEATED:
        return []
    return [Violation(field, f"must be 1 to {MAX_REPEATED}, are {len(items)}")]


def batch_keys(request: Any, into: list[Violation]) -> list[RunKey]:
    """Return the runs of a request's `keys`; append the rules that they break to `into`."""
    into += batch_violations("keys", request.keys)
    namespace = namespace_of(request)
    into += namespace_violations(namespace)
    keys = [RunKey(namespace, key) for key in request.keys[:MAX_REPEATED]]
    for place, key in enumerate(keys):
        into += [
            Violation(f"keys[{place}]", rule.description)
            for rule in key.violations()
            if rule.field == "key"
        ]
    return keys


def revision_violations(field: str, revision: int) -> list[Violation]:
    """Return the rule that a revision of which 0 means any breaks."""
    if revision >= 0:
        return []
    return [Violation(field, f"must be 1 or more, or 0 for any, is {revision}")]


def page_size(value: int, into: list[Violation]) -> int:
    """Return how many runs a page may hold; append the rule that `value` breaks to `into`."""
    if not 0 <= value <= MAX_PAGE:
        rule = f"must be 1 to {MAX_PAGE}, or 0 for the default, is {value}"
        into.append(Violation("page_size", rule))
    return value or DEFAULT_PAGE


def refuse(violations: Sequence[Violation]) -> None:
    """Raise InvalidRequest if there are violations."""
    if violations:
        raise InvalidRequest(violations)


def seconds(
    message: Any, field: str, low: float, high: float, default: float, into: list[Violation]
) -> float:
    """Return the duration in `field` of `message`, in seconds, or `default` when absent.

    Append the rule that it breaks to `into`.
    """
    if not message.HasField(field):
        return default
    duration: Duration = getattr(message, field)
    value = duration.seconds + duration.nanos / 1e9
    if not low <= value <= high:
        rule = f"must be {low:g} to {high:g} seconds, is {value:.15g}"
        into.append(Violation(field, rule))
    return value
