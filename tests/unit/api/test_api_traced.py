"""What the span of a call says of how the call ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.status import guarded, guarded_stream
from headstart_service.domain.errors import (
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
    Violation,
)
from headstart_service.domain.log_fields import FIELDS
from headstart_service.telemetry.tracing.tracing import TraceIds, Tracing
from tests.support.waiting import wait_until

SERVICE = "headstart.v1.PrecomputeService"
REQUEST = pb.GetResultsRequest(key="game-1").SerializeToString()
ANSWER = pb.GetResultsResponse(
    key="game-1",
    revision=3,
    status=pb.PRECOMPUTE_STATUS_COMPLETED,
    steps={"one": pb.StepReport(state=pb.STEP_STATE_FAILED)},
).SerializeToString()


class Traced:
    """A channel to methods that are traced, and the spans of their calls."""

    def __init__(self, channel: grpc.aio.Channel, exporter: InMemorySpanExporter) -> None:
        self.channel = channel
        self._exporter = exporter

    async def get(self, data: bytes = REQUEST, **options: Any) -> Any:
        return await self.channel.unary_unary(f"/{SERVICE}/GetResults")(data, timeout=5, **options)

    async def span(self) -> ReadableSpan:
        [span] = await wait_until(self._exporter.get_finished_spans)
        return span


@asynccontextmanager
async def served(answer: bytes | Exception) -> AsyncIterator[Traced]:
    async def unary(_data: bytes, _context: Any) -> bytes:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(_data: bytes, _context: Any) -> AsyncIterator[bytes]:
        while True:
            yield await unary(_data, _context)

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    wrap = Tracing(provider).calls()
    unaries = grpc.unary_unary_rpc_method_handler(guarded(unary, nullcontext()))
    streams = grpc.unary_stream_rpc_method_handler(guarded_stream(stream, nullcontext()))
    handlers = {
        "GetResults": wrap("GetResults", unaries),
        "WatchResults": wrap("WatchResults", streams),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Traced(channel, exporter)
    await server.stop(None)


async def test_an_answer_is_passed_on_as_it_is_and_told_in_the_words_of_the_contract() -> None:
    async with served(ANSWER) as traced:
        assert await traced.get() == ANSWER
        span = await traced.span()
    assert span.name == f"{SERVICE}/GetResults"
    told = {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/GetResults",
        "rpc.response.status_code": 0,
        "headstart.namespace": "default",
        "headstart.key": "game-1",
        "headstart.outcome": "partial",
        "headstart.status": "completed",
        "headstart.revision": 3,
    }
    assert dict(span.attributes) == told


@pytest.mark.parametrize(
    ("error", "code", "ours"),
    [
        (RunNotFound("default", "game-1"), 5, False),
        (InvalidRequest([Violation("key", "must be short")]), 3, False),
        (StoreUnavailable("redis://:password@host"), 14, True),
        (RuntimeError("a secret"), 13, True),
    ],
)
async def test_a_failed_call_has_its_code_and_what_its_caller_reads(
    error: Exception, code: int, *, ours: bool
) -> None:
    async with served(error) as traced:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await traced.get()
        span = await traced.span()
    assert span.attributes["rpc.response.status_code"] == code
    assert (span.status.status_code is StatusCode.ERROR) is ours
    assert span.status.description == (raised.value.details() if ours else None)
    assert span.events == ()
    assert (span.attributes.get("headstart.outcome") == "missing") is (code == 5)
    assert "secret" not in span.to_json()


async def test_the_log_of_an_internal_error_leads_to_its_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.handler.addFilter(ids := TraceIds())
    try:
        async with served(RuntimeError("a secret")) as traced:
            parent = f"00-{'a' * 32}-{'b' * 16}-01"
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await traced.get(metadata=(("traceparent", parent),))
            span = await traced.span()
    finally:
        caplog.handler.removeFilter(ids)
    [record] = [r for r in caplog.records if FIELDS in r.__dict__]
    fields = record.__dict__[FIELDS]
    assert fields["error_id"] in raised.value.details()
    assert fields["error_id"] in span.status.description
    assert fields["trace_id"] == "a" * 32
    assert fields["span_id"] == f"{span.context.span_id:016x}"
    assert f"{span.parent.span_id:016x}" == "b" * 16


async def test_a_request_that_nobody_can_read_is_still_a_span() -> None:
    async with served(ANSWER) as traced:
        await traced.get(b"\xff\xff")
        span = await traced.span()
    assert "headstart.key" not in span.attributes


async def test_a_stream_that_its_caller_leaves_is_one_span_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(ANSWER) as traced:
        call = traced.channel.unary_stream(f"/{SERVICE}/WatchResults")(REQUEST)
        assert await call.read() == ANSWER
        call.cancel()
        span = await traced.span()
    assert span.attributes["headstart.responses"] >= 1
    assert span.attributes["rpc.response.status_code"] == 1
    assert span.status.status_code is StatusCode.UNSET
    assert "detach" not in caplog.text
