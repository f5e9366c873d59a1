"""The only place that speaks gRPC status codes: errors become google.rpc.Status here."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import ServicerContext
from grpc_status import rpc_status

from ..domain.errors import (
    AnswerTooLarge,
    CapacityExhausted,
    HeadstartError,
    InvalidRequest,
    LayoutMismatch,
    NotConfigured,
    PermissionDenied,
    RecordDamaged,
    RunNotFound,
    StoreUnavailable,
    Unauthenticated,
    Violation,
)
from ..domain.log_fields import fields
from .call_observer import Ended, unheard

log = logging.getLogger(__name__)

# gRPC sends the message twice, once with each special byte as three bytes, and the details in
# base 64. All trailers together must stay below 8 kB.
_MAX_MESSAGE = 1000
_MAX_DETAILS = 2000
_MAX_FIELD = 200
_MAX_DESCRIPTION = 300

_OK, _CANCELLED = "OK", "CANCELLED"

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = ServicerContext[Any, Any]

Refused = Callable[[HeadstartError, Any, Context], None]
"""Called with the error of a call, its request as it came, and its context."""


def unlogged(_: HeadstartError, __: Any, ___: Context) -> None:
    """Do nothing with an error."""


def status_of(error: HeadstartError) -> status_pb2.Status:  # noqa: C901, PLR0911  # one error a line
    """Return the status, with its details, that reports `error` to a caller."""
    match error:
        case InvalidRequest():
            detail = error_details_pb2.BadRequest(
                field_violations=_field_violations(error.violations)
            )
            return _status(code_pb2.INVALID_ARGUMENT, str(error), detail)
        case RunNotFound():
            return _status(code_pb2.NOT_FOUND, str(error))
        case Unauthenticated():
            return _status(code_pb2.UNAUTHENTICATED, str(error), _info("UNAUTHENTICATED"))
        case PermissionDenied():
            denied = _info("PERMISSION_DENIED", field=error.field, missing=error.missing)
            return _status(code_pb2.PERMISSION_DENIED, str(error), denied)
        case NotConfigured():
            return _status(code_pb2.FAILED_PRECONDITION, str(error))
        case RecordDamaged():
            log.error("%s", error)
            return _status(code_pb2.DATA_LOSS, str(error))
        case CapacityExhausted():
            return _status(code_pb2.RESOURCE_EXHAUSTED, str(error), _retry(error.retry_after))
        case AnswerTooLarge():
            # Without a delay: the same call would be answered in the same way.
            return _status(code_pb2.RESOURCE_EXHAUSTED, str(error))
        case LayoutMismatch():
            # Another replica may agree with the store, so callers may retry.
            return _status(code_pb2.UNAVAILABLE, str(error), _retry(error.retry_after))
        case StoreUnavailable():
            # Callers do not learn what exactly is wrong with Redis; the log has it for operators.
            text = "the store is unavailable"
            return _status(code_pb2.UNAVAILABLE, text, _retry(error.retry_after))
        case _:
            return internal_status(error)


def internal_status(error: Exception) -> status_pb2.Status:
    """A status without the exception's text; its id is in the log beside it."""
    error_id = uuid.uuid4().hex[:12]
    attributes = fields("call.internal_error", error_id=error_id)
    log.error("internal error %s", error_id, exc_info=error, extra=attributes)
    info = _info("INTERNAL", error_id=error_id)
    return _status(code_pb2.INTERNAL, f"internal error {error_id}", info)


def guarded(
    method: Callable[[Request, Context], Awaitable[Response]],
    gate: AbstractContextManager[None],
    ended: Ended = unheard,
    refused: Refused = unlogged,
) -> Callable[[Request, Context], Awaitable[Response]]:
    """Call `method` inside the gate; answer with a status what either raises.

    However it ends, `ended` receives the code; for a call whose caller has gone, CANCELLED. What
    either raises goes to `refused`, too.
    """

    async def call(request: Request, context: Context) -> Response:
        began = time.perf_counter()
        code = _CANCELLED
        try:
            with gate:
                response = await method(request, context)
            code = _OK
        except grpc.aio.AbortError:
            raise
        except HeadstartError as error:
            status = status_of(error)
            code = _name(status)
            refused(error, request, context)
        except Exception as error:  # noqa: BLE001  # its text must not reach the caller
            status = internal_status(error)
            code = _name(status)
        else:
            return response
        finally:
            ended(code, time.perf_counter() - began)
        await context.abort_with_status(_abortable(status))
        raise AssertionError("abort returned")

    return call


def guarded_stream(
    method: Callable[[Request, Context], AsyncGenerator[Response]],
    gate: AbstractContextManager[None],
    ended: Ended = unheard,
    refused: Refused = unlogged,
) -> Callable[[Request, Context], AsyncGenerator[Response]]:
    """As `guarded`, for a method that streams its responses."""

    async def call(request: Request, context: Context) -> AsyncGenerator[Response]:
        began = time.perf_counter()
        code = _CANCELLED
        try:
            with gate:
                async with aclosing(method(request, context)) as responses:
                    async for response in responses:
                        yield response
            code = _OK
        except (grpc.aio.AbortError, GeneratorExit):
            raise
        except HeadstartError as error:
            status = status_of(error)
            code = _name(status)
            refused(error, request, context)
        except Exception as error:  # noqa: BLE001  # as above
            status = internal_status(error)
            code = _name(status)
        else:
            return
        finally:
            ended(code, time.perf_counter() - began)
        await context.abort_with_status(_abortable(status))

    return call


def _name(status: status_pb2.Status) -> str:
    name: str = code_pb2.Code.Name(status.code)
    return name


def _field_violations(
    violations: Sequence[Violation],
) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Return as many violations as fit: beyond 8 kB of trailers gRPC drops the whole status."""
    listed: list[error_details_pb2.BadRequest.FieldViolation] = []
    left = _MAX_DETAILS
    for violation in violations:
        shown = error_details_pb2.BadRequest.FieldViolation(
            field=_clipped(violation.field, _MAX_FIELD),
            description=_clipped(violation.description, _MAX_DESCRIPTION),
        )
        left -= shown.ByteSize()
        if left < 0:
            shown.Clear()
            shown.description = f"and {len(violations) - len(listed)} more"
        listed.append(shown)
        if left < 0:
            break
    return listed


def _clipped(text: str, limit: int) -> str:
    """At most `limit` bytes of `text`."""
    data = text.encode()
    if len(data) <= limit:
        return text
    return data[: limit - 3].decode(errors="ignore") + "…"


def _status(code: int, message: str, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    return status_pb2.Status(code=code, message=_clipped(message, _MAX_MESSAGE), details=packed)


def _info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="headstart", metadata=metadata)


def _retry(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(seconds * 1000))
    return info


def _abortable(status: status_pb2.Status) -> grpc.Status:
    converted: grpc.Status = rpc_status.to_status(status)  # type: ignore[no-untyped-call]
    return converted
