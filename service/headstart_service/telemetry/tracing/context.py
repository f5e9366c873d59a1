"""W3C trace context as text: what travels in gRPC metadata and in records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Span,
    SpanContext,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C: Final = TraceContextTextMapPropagator()
_HEADERS: Final = frozenset(_W3C.fields)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """The context that a call brings; an empty one if it brings none that can be read."""
    carried = {
        name: value for name, value in metadata if name in _HEADERS and isinstance(value, str)
    }
    return _W3C.extract(carried, Context()) if carried else Context()


def as_text(span: SpanContext) -> str:
    """The `traceparent` of a span."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def log_ids(span: Span) -> dict[str, str]:
    """Return the fields of a log line that is written in this span; none in no span."""
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def from_text(traceparent: str) -> SpanContext:
    """What `as_text` wrote; an invalid context if it is anything else."""
    if not traceparent:
        return INVALID_SPAN_CONTEXT
    return get_current_span(
        _W3C.extract({"traceparent": traceparent}, Context())
    ).get_span_context()
