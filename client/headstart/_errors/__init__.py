"""Every error that this client raises on purpose.

    HeadstartError
    ├── InvalidRequest       the request breaks rules: `violations` names every one
    ├── NotFound             nothing is kept under this key
    ├── ResourceExhausted    no room for another run: try again after `retry_after` seconds
    ├── ServiceUnavailable   no server answers, or its store is away: `retry_after` likewise
    │   └── UnusableProcess  gRPC cannot run in this process: it forked, or gevent patched it
    ├── DeadlineExceeded     no answer came in time
    ├── Incomplete           get_or_compute's deadline came first: it has what there is
    ├── NoResult             the step that `stream` follows ended without a result
    ├── Unauthenticated      the service needs credentials, or other ones
    ├── PermissionDenied     the credentials do not allow this call
    └── ServiceError         everything else: `error_id` finds it in the service's log

gRPC's own exceptions are translated here and nowhere else. Where the failure is the service's or
the network's, the original is the `__cause__`; where it is the caller's, it would add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from headstart._errors import rpc_details

if TYPE_CHECKING:
    from headstart._get_or_compute.computed import Computed


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that one field of a request breaks."""

    field: str
    """The field's path in the request, for example `bridging.anchor`."""
    description: str
    """What it must be."""


# Every argument but the message has a default, for pickling across process pools and task queues.
# Unpickling calls the class with the message alone, then restores the attributes.
class HeadstartError(Exception):
    """The root: catching it catches everything that this client raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class InvalidRequest(HeadstartError):
    """The request breaks rules, and nothing was done. Sending it again will not help."""

    def __init__(self, message: str = "", violations: Iterable[Violation] = ()) -> None:
        self.violations = tuple(dict.fromkeys(violations))
        """Every rule that was broken, at once. Empty when the server named none."""
        listed = "; ".join(
            # "and 3 more" has no field.
            ": ".join(filter(None, (each.field, each.description)))
            for each in self.violations
        )
        super().__init__(": ".join(filter(None, (message, listed))))


class NotFound(HeadstartError):
    """Nothing is kept under this key: it was never started, or it expired, or was evicted."""


class ResourceExhausted(HeadstartError):
    """Every place is held by a run that has not ended, or an answer was too large."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Delay in seconds before another attempt makes sense; None if the server gave none."""


class ServiceUnavailable(HeadstartError):
    """The service cannot be reached, or cannot reach its own store."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Delay in seconds before another attempt makes sense; None if the server gave none."""


class UnusableProcess(ServiceUnavailable):
    """gRPC cannot run in this process: the message has the reason and a cure. Nothing was tried.

    The process was forked while gRPC ran in its parent, or gevent or eventlet has patched it.
    """


class DeadlineExceeded(HeadstartError):
    """No answer came before the call's timeout. The server may have done its work."""


class Incomplete(HeadstartError):
    """The deadline of `get_or_compute` came before some values: `computed` has the others."""

    def __init__(self, message: str = "", computed: Computed | None = None) -> None:
        super().__init__(message)
        self.computed = computed
        """What there is, and why the rest is not; None only in a copy that was unpickled bare."""
        self.missing: tuple[str, ...] = () if computed is None else computed.missing
        """The steps without a value, in the order of `fallback`."""


class NoResult(HeadstartError):
    """A step ended without a result: it failed, was skipped, or its run ended before it."""

    def __init__(
        self, message: str = "", step: str = "", failure_reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.step = step
        self.failure_reason = failure_reason
        """Why, as a `FailureReason`; None if it is not known."""


class Unauthenticated(HeadstartError):
    """The service did not accept this client's credentials, or it wants some."""


class PermissionDenied(HeadstartError):
    """The service accepted this client's credentials, but they do not allow this call."""


class ServiceError(HeadstartError):
    """Any other failure, most often one inside the service."""

    def __init__(
        self,
        message: str = "",
        error_id: str | None = None,
        code: grpc.StatusCode | None = None,
    ) -> None:
        super().__init__(message)
        self.error_id = error_id
        """What to search the service's log for; None when the server gave none."""
        self.code = code
        """The gRPC code; None when the failure has none."""


def from_rpc_error(error: grpc.RpcError) -> HeadstartError:
    """Translate gRPC's exception, of either its asyncio or its synchronous kind."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ServiceError(str(error))
    code = error.code()
    message = error.details() or code.name
    return _error_of(code, message, rpc_details.read(error.trailing_metadata()))


def from_status(number: int, message: str, serialized: bytes) -> HeadstartError:
    """Return the error of one item of a batch: its code, its text, and its bytes as a status."""
    code = next((each for each in grpc.StatusCode if each.value[0] == number), None)
    return _error_of(code or grpc.StatusCode.UNKNOWN, message, rpc_details.parse(serialized))


def _error_of(code: grpc.StatusCode, message: str, details: rpc_details.Details) -> HeadstartError:
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            # The server's message lists the violations, too.
            violations = [Violation(*pair) for pair in details.violations]
            return InvalidRequest("" if violations else message, violations)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhausted(message, details.retry_after)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            # CANCELLED comes from a server that stops: a caller's own cancellation is no RpcError.
            return ServiceUnavailable(message, details.retry_after)
    if code in _PLAIN:
        return _PLAIN[code](message)
    return ServiceError(f"{code.name}: {message}", details.metadata.get("error_id"), code)


def cause_of(error: HeadstartError, original: Exception) -> Exception | None:
    """Return what is shown as the cause of a translated error; None where it would be noise."""
    theirs = isinstance(error, ServiceUnavailable | DeadlineExceeded | ServiceError)
    return original if theirs else None


_PLAIN: Final = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}
