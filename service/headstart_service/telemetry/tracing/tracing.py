"""Spans and where they go: one provider for a process, set by OpenTelemetry's own variables.

It is no global: what else in the process uses OpenTelemetry is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from headstart._for_service import is_loopback

from ...domain.errors import StartupError
from ...domain.log_fields import FIELDS
from ...domain.run_store import StartRun
from ...pipeline.language_model import LanguageModel
from ...worker.ports import ProgressSink
from .calls import TracedCalls
from .context import log_ids
from .embeddings import Embedder, TracedEmbedder
from .language_models import TracedModel
from .recent import RecentStarts
from .starts import TracedStart
from .work import TracedProgress, TracedWork

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT_ENDPOINT: Final = "http://localhost:4317"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_HEADER_VALUE: Final = re.compile(r"[ -~]*")
_LAST_WORDS: Final = 2.0
"""Seconds that a process which stops gives its last spans to get out."""


class Tracing:
    """What each part of the service is wrapped in when it is traced."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("headstart", version("headstart"))
        self._recent = RecentStarts()

    def start(self, start: StartRun) -> TracedStart:
        """Trace starts: each carries the trace context of its call to the worker."""
        return TracedStart(start, self._tracer, self._recent)

    def calls(self) -> TracedCalls:
        """Wraps the API's methods."""
        return TracedCalls(self._tracer, self._recent)

    def work(self, worker: str) -> TracedWork:
        """Watches the runs and steps of the worker of this name."""
        return TracedWork(self._tracer, worker)

    def sink(self, sink: ProgressSink) -> TracedProgress:
        """A worker's writes."""
        return TracedProgress(sink, self._tracer)

    def embedder(self, embedder: Embedder) -> TracedEmbedder:
        """The embedding model."""
        return TracedEmbedder(embedder, self._tracer)

    def model_without_spans(self, model: LanguageModel, name: str) -> LanguageModel:
        """A language model whose SDK makes no spans."""
        return TracedModel(model, name, self._tracer)

    def language_model(self) -> dict[str, Any]:
        """Anthropic's SDK makes its spans itself: how. They hold neither prompt nor answer.

        Its requests carry no trace context, which would be no one's business there.
        """
        metadata_only = {"enabled": True, "content_mode": "metadata_only"}
        return {
            "tracer_provider": self._provider,
            "propagation": False,
            "traces": metadata_only,
        }


class FollowStart(Sampler):
    """Samples a run when its start was: both or none of them can be looked at.

    A run's span is a root that links to its start, so a sampler that follows parents would decide
    anew. What has a parent, or links to nothing, is left to the sampler that the operator chose.
    """

    def __init__(self, chosen: Sampler) -> None:
        self._chosen = chosen

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """As the start of the run was decided."""
        if links and not get_current_span(parent_context).get_span_context().is_valid:
            sampled = links[0].context.trace_flags.sampled
            return SamplingResult(
                Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP,
                attributes if sampled else None,
                trace_state,
            )
        return self._chosen.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """What it is."""
        return f"FollowStart({self._chosen.get_description()})"


class TraceIds(logging.Filter):
    """Gives a log line the trace and span that it is written in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add both to the record's fields, and keep the record."""
        if ids := log_ids(get_current_span()):
            record.__dict__[FIELDS] = {**record.__dict__.get(FIELDS, {}), **ids}
        return True


@asynccontextmanager
async def opened(role: str) -> AsyncIterator[Tracing]:
    """Tracing while the context is open; then what is left is sent, for two seconds at most."""
    provider, exporter = _provider(role)
    ids = TraceIds()
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(ids)
    try:
        yield Tracing(provider)
    finally:
        closing = asyncio.create_task(asyncio.to_thread(provider.shutdown), name="last spans")
        await asyncio.wait({closing}, timeout=_LAST_WORDS)
        if not closing.done():
            # No collector takes the spans. This ends the retries, and so the thread that shuts
            # down.
            await asyncio.to_thread(exporter.shutdown)
        await asyncio.wait({closing})
        for handler in handlers:
            handler.removeFilter(ids)


def _channel_options() -> tuple[tuple[str, int], ...]:
    """For a collector on this machine: no proxy. gRPC would use that of the language model."""
    endpoints = (os.environ.get(name) for name in _ENDPOINTS)
    endpoint = next(filter(None, endpoints), _DEFAULT_ENDPOINT)
    target = urlsplit(endpoint).netloc or endpoint
    return (("grpc.enable_http_proxy", 0),) if is_loopback(target) else ()


def _provider(role: str) -> tuple[TracerProvider, OTLPSpanExporter]:
    for name in _PROTOCOLS:
        if (protocol := os.environ.get(name) or "grpc") != "grpc":
            raise StartupError(f"{name}: must be grpc, not {protocol:.40}: no other is built in")
    _check_secrets()
    resource = Resource.create({"service.instance.id": str(uuid4())})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: f"headstart-{role}"}))
    try:
        provider = TracerProvider(resource=resource)
        provider.sampler = FollowStart(provider.sampler)
        # The stubs of OpenTelemetry allow one option, and only text.
        options: Any = _channel_options()
        exporter = OTLPSpanExporter(channel_options=options)
        # Spans that cannot be sent wait in a queue of bounded length; further ones are dropped.
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except Exception as error:  # noqa: BLE001  # each part that reads a variable has its own
        # The error's message is left out: it may quote a header, which holds a token.
        given = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_")))
        raise StartupError(
            f"HEADSTART_TRACING: OpenTelemetry refuses its settings ({type(error).__name__}): "
            f"correct one of {given}"
        ) from None
    return provider, exporter


def _check_secrets() -> None:
    """Raise StartupError for what OpenTelemetry and gRPC would log, with the token in it."""
    for name, value in os.environ.items():
        if name.startswith(_ENDPOINTS) and "@" in value:
            raise StartupError(
                f"{name}: must have no user and password: OTEL_EXPORTER_OTLP_HEADERS takes them"
            )
        if name in _HEADERS and not all(map(_is_header, value.split(","))):
            raise StartupError(
                f"{name}: must be name=value, several separated by commas, of printable ASCII; "
                "percent-encode commas and spaces of a value"
            )


def _is_header(text: str) -> bool:
    name, equals, value = text.strip().partition("=")
    valid = _HEADER_NAME.fullmatch(name) and equals and _HEADER_VALUE.fullmatch(unquote(value))
    return bool(valid or not text.strip())
