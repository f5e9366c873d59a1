"""Errors as Connect sends them: a code, a message and the google.rpc details as JSON."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, error_details_pb2, status_pb2

CODES: Final[Mapping[int, tuple[str, int]]] = {
    code_pb2.CANCELLED: ("canceled", 499),
    code_pb2.UNKNOWN: ("unknown", 500),
    code_pb2.INVALID_ARGUMENT: ("invalid_argument", 400),
    code_pb2.DEADLINE_EXCEEDED: ("deadline_exceeded", 504),
    code_pb2.NOT_FOUND: ("not_found", 404),
    code_pb2.ALREADY_EXISTS: ("already_exists", 409),
    code_pb2.PERMISSION_DENIED: ("permission_denied", 403),
    code_pb2.RESOURCE_EXHAUSTED: ("resource_exhausted", 429),
    code_pb2.FAILED_PRECONDITION: ("failed_precondition", 400),
    code_pb2.ABORTED: ("aborted", 409),
    code_pb2.OUT_OF_RANGE: ("out_of_range", 400),
    code_pb2.UNIMPLEMENTED: ("unimplemented", 501),
    code_pb2.INTERNAL: ("internal", 500),
    code_pb2.UNAVAILABLE: ("unavailable", 503),
    code_pb2.DATA_LOSS: ("data_loss", 500),
    code_pb2.UNAUTHENTICATED: ("unauthenticated", 401),
}
"""By gRPC code: Connect's name for it, and the HTTP status of a unary answer."""
_DETAILS: Final[Mapping[str, Any]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
    )
}


class Refused(Exception):
    """A call that the transport itself refuses, with the status that its caller gets."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`http_status` replaces the code's own in a unary answer."""
        super().__init__(message)
        self.status = status_pb2.Status(code=code, message=message)
        self.http_status = http_status or CODES[code][1]
        self.headers = headers or {}


def code_name(code: int) -> str:
    """Return Connect's name for a gRPC code."""
    return CODES[code][0]


def http_status_of(status: status_pb2.Status) -> int:
    """Return the HTTP status of a unary answer with this error."""
    return CODES[status.code][1]


def headers_of(status: status_pb2.Status) -> dict[str, str]:
    """Return the HTTP headers that repeat an error for callers that know no Connect."""
    if status.code == code_pb2.UNAUTHENTICATED:
        return {"www-authenticate": "Bearer"}
    for packed in status.details:
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(retry):
            delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            return {"retry-after": str(math.ceil(delay))}
    return {}


def error_json(status: status_pb2.Status) -> dict[str, Any]:
    """Return an error as Connect's JSON object."""
    error: dict[str, Any] = {"code": code_name(status.code), "message": status.message}
    if status.details:
        error["details"] = [_detail(packed) for packed in status.details]
    return error


def _detail(packed: any_pb2.Any) -> dict[str, Any]:
    name = packed.TypeName()
    value = b64encode(packed.value).rstrip(b"=").decode()
    detail: dict[str, Any] = {"type": name, "value": value}
    if name in _DETAILS:
        detail["debug"] = MessageToDict(_DETAILS[name].FromString(packed.value))
    return detail
