"""An error as the service would send it, as the end of a call or as the result of an item."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc.aio

from headstart._errors import (
    DeadlineExceeded,
    HeadstartError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    Unauthenticated,
    rpc_details,
)
from headstart.v1 import precompute_pb2 as pb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_CODES: Final = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}


async def abort(context: Context, error: Exception) -> None:
    """End the call as the service does when the client is to raise this error."""
    code, message, details = _status(error)
    if details:
        context.set_trailing_metadata(((rpc_details.METADATA_KEY, details),))
    await context.abort(code, message)


def item_error(error: Exception) -> pb.Error:
    """Return the error of one item of a batch."""
    code, message, details = _status(error)
    found = pb.Error.FromString(details) if details else pb.Error()
    found.code, found.message = code.value[0], message
    return found


def _status(error: Exception) -> tuple[grpc.StatusCode, str, bytes]:
    """Return an error's code, text and details.

    Any error that is not the contract's is the script's, and reaches the test that wrote it.
    """
    if not isinstance(error, HeadstartError):
        error = ServiceError(f"the script of this run cannot be followed: {error!r}")
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    error_id = None
    if isinstance(error, ServiceError):
        code, error_id = error.code or code, error.error_id
    details = rpc_details.serialized(
        code.value[0],
        str(error),
        violations=[(each.field, each.description) for each in getattr(error, "violations", ())],
        retry_after=getattr(error, "retry_after", None),
        error_id=error_id,
    )
    return code, str(error), details
