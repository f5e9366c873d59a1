"""A collector of our own: a real gRPC server that takes what OpenTelemetry's exporters send.

As a context manager it serves on a free port; `spans` gives what has come so far.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Span:
    """A span as it came, with ids in hex as logs have them."""

    name: str
    service: str
    kind: str
    trace: str
    span: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    failed: bool
    message: str
    seconds: float

    @property
    def ids(self) -> tuple[str, str]:
        """What a link to it holds."""
        return self.trace, self.span

    @property
    def texts(self) -> str:
        """All that it says, to look for what it must not say."""
        return repr(self)


@dataclass
class Collector:
    """What has been exported so far, and where to."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: collector.ExportTraceServiceRequest) -> None:
        found = list(_spans(request))
        with self._lock:
            self.spans += found

    def named(self, name: str, **attributes: Any) -> list[Span]:
        """Those of this name whose attributes, dots written as underscores, have these values."""
        with self._lock:
            spans = list(self.spans)
        return [
            span
            for span in spans
            if span.name == name
            and attributes.items()
            <= {key.replace(".", "_"): _hashable(v) for key, v in span.attributes.items()}.items()
        ]

    def one(self, name: str, **attributes: Any) -> Span:
        """The only one."""
        [span] = self.named(name, **attributes)
        return span


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _spans(request: collector.ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    service=service,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes=_attributes(span.attributes),
                    events=tuple((e.name, _attributes(e.attributes)) for e in span.events),
                    failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    message=span.status.message,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that serves while the context is open."""
    collected = Collector()

    class Servicer(collector_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            collected.add(request)
            return collector.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    collector_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    collected.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collected
    finally:
        server.stop(1).wait()
