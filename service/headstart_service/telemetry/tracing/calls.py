"""A span for each call of the API, child of the caller's, around the method's own handler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import ServicerContext
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, use_span

from headstart.v1 import precompute_pb2 as pb

from ...base.service_methods import STREAMS
from ...domain import DEFAULT_NAMESPACE, RunKey
from .context import from_metadata
from .recent import RecentStarts

Context = ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["PrecomputeService"]
_KEYED: Final = {
    name: GetMessageClass(method.input_type)
    for name, method in _SERVICE.methods_by_name.items()
    if "key" in method.input_type.fields_by_name
}
"""The requests that are about one run."""
_OURS: Final = frozenset({2, 4, 12, 13, 14, 15})
"""The gRPC codes that OpenTelemetry counts as the server's errors; the others are the caller's."""
_CANCELLED, _NOT_FOUND = 1, 5
_SHOWN: Final = 300
_STATUS: Final = {
    number: name.removeprefix("PRECOMPUTE_STATUS_").lower()
    for name, number in pb.PrecomputeStatus.items()
}
_OUTCOME: Final = {
    number: name.removeprefix("START_OUTCOME_").lower() for name, number in pb.StartOutcome.items()
}


class TracedCalls:
    """Wraps handlers by the names of their methods. What they answer is left as it is."""

    def __init__(self, tracer: Tracer, recent: RecentStarts) -> None:
        self._tracer = tracer
        self._recent = recent

    def __call__(self, method: str, handler: Handler) -> Handler:
        """The handler in a span of its own for each call."""
        # The stubs of grpc declare blocking methods alone.
        call: Any = handler.unary_stream or handler.unary_unary
        serializer = handler.response_serializer
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, call), response_serializer=serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, call), response_serializer=serializer
        )

    def _unary(
        self, method: str, call: Callable[[bytes, Context], Any]
    ) -> Callable[[bytes, Context], Any]:
        async def traced(data: bytes, context: Context) -> Any:
            span = self._span(method, data, context)
            ended = False
            try:
                with use_span(span, record_exception=False, set_status_on_exception=False):
                    response = await call(data, context)
                    ended = True
                _describe(span, method, response)
            finally:
                _end(span, context, ended=ended)
            return response

        return traced

    def _stream(
        self, method: str, call: Callable[[bytes, Context], AsyncGenerator[Any]]
    ) -> Callable[[bytes, Context], AsyncGenerator[Any]]:
        async def traced(data: bytes, context: Context) -> AsyncGenerator[Any]:
            span = self._span(method, data, context)
            ended = False
            sent = 0
            responses = call(data, context)
            try:
                while True:
                    # The span is current only while the method itself runs. A generator that is
                    # left at its yield would leave its span to the code that closes it.
                    with use_span(span, record_exception=False, set_status_on_exception=False):
                        response = await anext(responses, None)
                    if response is None:
                        break
                    sent += 1
                    yield response
                ended = True
            finally:
                await responses.aclose()
                span.set_attribute("headstart.responses", sent)
                _end(span, context, ended=ended)

        return traced

    def begin(
        self, method: str, request: Message | None, metadata: Iterable[tuple[str, str]]
    ) -> ConnectSpan:
        """Begin the span of a call over HTTP; a request that cannot be read is None."""
        key = None if request is None or method not in _KEYED else _run_key(request)
        return ConnectSpan(method, self._started(method, "connectrpc", key, metadata))

    def _span(self, method: str, data: bytes, context: Context) -> Span:
        metadata = context.invocation_metadata() or ()
        return self._started(method, "grpc", _key(method, data), metadata)

    def _started(
        self,
        method: str,
        system: str,
        key: RunKey | None,
        metadata: Iterable[tuple[str, str | bytes]],
    ) -> Span:
        attributes = {
            "rpc.system.name": system,
            "rpc.method": f"{_SERVICE.full_name}/{method}",
        }
        links: list[Link] = []
        if key is not None:
            attributes |= {"headstart.namespace": key.namespace, "headstart.key": key.key}
            if method != "StartPrecompute":  # the run's span has a link to that call instead
                links = self._recent.links(key)
        return self._tracer.start_span(
            f"{_SERVICE.full_name}/{method}",
            from_metadata(metadata),
            SpanKind.SERVER,
            attributes,
            links,
        )


def _key(method: str, data: bytes) -> RunKey | None:
    """The run that a request is about, if it is about one and can be read at all."""
    request = _KEYED.get(method)
    if request is None:
        return None
    try:
        return _run_key(request.FromString(data))
    except DecodeError:
        return None


def _run_key(message: Any) -> RunKey:
    return RunKey(message.namespace[:64] or DEFAULT_NAMESPACE, message.key[:256])


def _describe(span: Span, method: str, response: bytes | Message) -> None:
    """Say what the answer was, in the words of the contract."""
    if not span.is_recording():
        return
    if method == "GetResults" and isinstance(response, bytes):
        results = pb.GetResultsResponse.FromString(response)
        states = {report.state for report in results.steps.values()}
        whole = states == {pb.STEP_STATE_COMPLETED}
        span.set_attribute("headstart.outcome", "complete" if whole else "partial")
        span.set_attribute("headstart.status", _STATUS[results.status])
        span.set_attribute("headstart.revision", results.revision)
    elif isinstance(response, pb.StartPrecomputeResponse):
        span.set_attribute("headstart.outcome", _OUTCOME[response.outcome])
        span.set_attribute("headstart.revision", response.revision)


class ConnectSpan:
    """The span of a call over HTTP."""

    def __init__(self, method: str, span: Span) -> None:
        self._method = method
        self._span = span
        self._sent = 0

    def current(self) -> AbstractContextManager[Span]:
        """Make it the current span while the context is open."""
        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def answered(self, data: bytes) -> None:
        """Note a serialized response."""
        self._sent += 1
        if not self._span.is_recording():
            return
        if self._method == "StartPrecompute":
            _describe(self._span, self._method, pb.StartPrecomputeResponse.FromString(data))
        else:
            _describe(self._span, self._method, data)

    def end(self, code: int, name: str, message: str) -> None:
        """End it, with the gRPC code, the protocol's name for it and what the caller gets."""
        span = self._span
        if self._method in STREAMS:
            span.set_attribute("headstart.responses", self._sent)
        if code == _NOT_FOUND:
            span.set_attribute("headstart.outcome", "missing")
        if code in _OURS:
            span.set_status(Status(StatusCode.ERROR, message[:_SHOWN]))
        span.set_attribute("rpc.response.status_code", name)
        span.end()


def _end(span: Span, context: Context, *, ended: bool) -> None:
    """End the span with the call's status, as callers read it: never with an exception's text."""
    code = 0
    if not ended:
        code = _code(context.code()) or _CANCELLED
        if code == _NOT_FOUND:
            span.set_attribute("headstart.outcome", "missing")
        if code in _OURS:
            span.set_status(Status(StatusCode.ERROR, _text(context.details())[:_SHOWN]))
    span.set_attribute("rpc.response.status_code", code)
    span.end()


def _code(code: Any) -> int:
    """A call's code: gRPC's asyncio tells a number, or an enumerator whose value holds one."""
    number: int = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    return number


def _text(details: Any) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details or "")
