"""How one call goes, for metrics and its trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from .errors import code_name
from .head import Head


class CallSpan(Protocol):
    """The trace of one call."""

    def current(self) -> AbstractContextManager[Any]:
        """Make it the current span while the method runs."""
        ...

    def answered(self, data: bytes) -> None:
        """Note a serialized response."""
        ...

    def end(self, code: int, name: str, message: str) -> None:
        """End it, with the gRPC code, the protocol's name for it and what the caller gets."""
        ...


class TraceCall(Protocol):
    """Begins spans."""

    def __call__(
        self, method: str, request: Message | None, metadata: Sequence[tuple[str, str]]
    ) -> CallSpan:
        """Begin the span of a call; a request that cannot be read is None."""
        ...


class Untraced:
    """The span of a call where tracing is off."""

    def current(self) -> AbstractContextManager[None]:
        """As `CallSpan.current`."""
        return nullcontext()

    def answered(self, data: bytes) -> None:
        """As `CallSpan.answered`."""

    def end(self, code: int, name: str, message: str) -> None:
        """As `CallSpan.end`."""


_UNTRACED = Untraced()


def untraced(method: str, request: Message | None, metadata: Sequence[tuple[str, str]]) -> Untraced:
    """Begin no span."""
    del method, request, metadata
    return _UNTRACED


class Attempt:
    """One call, from its head to its end."""

    def __init__(
        self,
        head: Head,
        trace: Callable[[Message | None, Sequence[tuple[str, str]]], CallSpan],
        ended: Callable[[str, float], None],
    ) -> None:
        """Report the code's name and the seconds to `ended`, unless it is reported as ready."""
        self._began = time.perf_counter()
        self._head = head
        self._trace = trace
        self._ended = ended
        self._counted = False
        self._span: CallSpan | None = None
        self.request: Message | None = None
        """What it asks for, once that was read."""
        self.code: int = code_pb2.CANCELLED
        """What it ends with; as long as nothing else is known, its caller has gone."""
        self.status: status_pb2.Status | None = None
        """The error that the caller gets, if any."""
        self.http_status: int | None = None
        self.headers: Mapping[str, str] | None = None

    @property
    def span(self) -> CallSpan:
        """Its trace, which `begin` has begun, or else, without a request, this."""
        return self._span or self.begin(None)

    def begin(self, request: Message | None) -> CallSpan:
        """Begin the trace of this request."""
        self.request = request
        self._span = self._trace(request, list(self._head.metadata()))
        return self._span

    def fail(
        self,
        status: status_pb2.Status,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Note the error that the caller gets."""
        self.code, self.status = status.code, status
        self.http_status, self.headers = http_status, headers

    def ready(self, note: Callable[[float, bool], None], *, complete: bool) -> None:
        """Count it as a GetResults that memory alone has answered, and as nothing else."""
        self._counted = True
        note(time.perf_counter() - self._began, complete)

    def end(self) -> None:
        """Count it, and end its trace."""
        name = "ok" if self.code == code_pb2.OK else code_name(self.code)
        self.span.end(self.code, name, "" if self.status is None else self.status.message)
        if not self._counted:
            self._ended(code_pb2.Code.Name(self.code), time.perf_counter() - self._began)
