"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import Server
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from ..auth.grants import Access, Check, Verb
from ..base.open_files import share_of_files
from ..domain import DEFAULT_NAMESPACE
from ..domain.errors import Unauthenticated
from .call_limits import CallLimits, Gate, Gates
from .convert import request_from
from .health import SERVICE, Health
from .results.answer import Answer
from .results.outgoing import SMALL, Outgoing
from .servicer import Context, PrecomputeServicer
from .status import guarded, guarded_stream

_REFLECTIONS = 100
"""Streams of reflection that a process holds at once."""
_LARGE = 32 * 1024
"""Bytes of a request that is parsed once only."""
_READ = Verb.READ  # looking an enum up takes longer than all else in the check of a ready result

_OPTIONS = (
    # Two servers must not silently share a port.
    ("grpc.so_reuseport", 0),
    # A burst of waiters is the normal case here; by default one of 1,000 calls is cancelled.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Backends keep idle connections alive behind load balancers that drop them silently.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A connection that never speaks HTTP/2 holds a file; by default for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
)


_MORE_STREAMS = 1000
"""Streams of a connection beyond the places that there are."""
_MOST_CONNECTIONS = 2**31 - 1
"""What gRPC takes as no limit."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap = Callable[[str, Handler], Handler]
"""Given a method's name and its handler; gives one that does the same, and more beside."""


def build_server(
    servicer: PrecomputeServicer,
    health_service: Health,
    limits: CallLimits | None = None,
    access: Access | None = None,
    *,
    gates: Gates | None = None,
    outgoing: Outgoing | None = None,
    reflects: bool = True,
    wrap: Wrap | None = None,
) -> Server:
    """A server that is not bound to a port yet; with `access` its calls need a token.

    Give it `gates` instead of `limits` to read them; `outgoing` bounds its large answers. Each of
    the service's methods has its handler wrapped in `wrap`, if that is given.
    """
    # By default it accepts until the process has no file left.
    connections = min(share_of_files(2), _MOST_CONNECTIONS)
    gates = gates or Gates(limits or CallLimits())
    server = grpc.aio.server(
        options=(
            *_OPTIONS,
            ("grpc.max_allowed_incoming_connections", connections),
            # One connection may use all places, and is refused, not queued, when it asks for more.
            ("grpc.max_concurrent_streams", gates.places + _MORE_STREAMS),
        )
    )
    methods = _handlers(servicer, gates, access, outgoing or Outgoing())
    if wrap is not None:
        methods = {name: wrap(name, handler) for name, handler in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_generic_rpc_handlers((health_service.handlers(),))
    if reflects:
        names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        add_reflection: Any = (
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        )  # it ships no types
        add_reflection(_Reflection(names, access), server)
    return server


class _Reflection(reflection.aio.ReflectionServicer):
    """Reflection, for callers with any token when tokens are asked for."""

    def __init__(self, names: Sequence[str], access: Access | None) -> None:
        super().__init__(names)  # type: ignore[no-untyped-call]
        describe: Any = super().ServerReflectionInfo

        async def checked(requests: Any, context: Context) -> AsyncGenerator[Any]:
            if access is not None:
                access.check_known(requests, context)
            async for response in describe(requests, context):
                yield response

        gate = Gate("streams of reflection", _REFLECTIONS)
        self._describe = guarded_stream(checked, gate)

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncGenerator[Any]:  # noqa: N802  # gRPC's name
        async for response in self._describe(requests, context):
            yield response


def _handlers(
    servicer: PrecomputeServicer, gates: Gates, access: Access | None, outgoing: Outgoing
) -> dict[str, Handler]:
    """The methods by name, each inside its gate and behind its check.

    Errors are caught and tokens checked here: an interceptor would cost more a call. Requests are
    parsed here too, and only with a token that is accepted: parsing 4 MB takes 0.2 s, during which
    the process does nothing else, in a thread neither. Of what gRPC cannot parse it makes UNKNOWN,
    with the exception's text, and a traceback in the log.
    """
    reads, writes, lists, known = _checks(access)
    observer = servicer.observer

    def allowed(kind: Any, data: bytes, context: Context, check: Check | None) -> Any:
        if access is not None:
            access.grant(context)
        request = request_from(kind, data)
        if check is not None:
            check(request, context)
        return request

    def method(
        call: Callable[..., Any], request: Any, check: Check | None
    ) -> Callable[[bytes, Context], Any]:
        async def parsed(data: bytes, context: Context) -> Any:
            return await call(allowed(request, data, context, check), context)

        return parsed

    def unary(
        name: str, call: Callable[..., Any], request: Any, check: Check | None
    ) -> tuple[str, grpc.RpcMethodHandler[Any, Any]]:
        checked = guarded(method(call, request, check), gates.calls, partial(observer.ended, name))
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            checked, response_serializer=_serialized
        )
        return name, handler

    async def results(request: pb.GetResultsRequest, context: Context) -> bytes:
        return await outgoing.admit(await servicer.get_results(request, context), context)

    get_results = guarded(
        method(results, pb.GetResultsRequest, reads),
        gates.waiters,
        partial(observer.ended, "GetResults"),
    )

    async def watch(data: bytes, context: Context) -> AsyncGenerator[bytes]:
        request = allowed(pb.WatchResultsRequest, data, context, reads)
        async with aclosing(servicer.watch_results(request, context)) as responses:
            async for response in responses:
                # gRPC asks for the next one when it has written this one.
                async with outgoing.sending(response.data, context):
                    yield response.data

    s = servicer
    methods = dict(
        [
            unary("StartPrecompute", s.start_precompute, pb.StartPrecomputeRequest, writes),
            unary("GetStatus", s.get_status, pb.GetStatusRequest, reads),
            unary("CancelPrecompute", s.cancel_precompute, pb.CancelPrecomputeRequest, writes),
            unary("ReportStep", s.report_step, pb.ReportStepRequest, writes),
            unary("ListPrecomputes", s.list_precomputes, pb.ListPrecomputesRequest, lists),
            unary("ListPipelines", s.list_pipelines, pb.ListPipelinesRequest, known),
            unary("GetStats", s.get_stats, pb.GetStatsRequest, lists),
        ]
    )
    # Without a serializer the bytes go out as they are.
    methods["GetResults"] = grpc.unary_unary_rpc_method_handler(
        _ready_or(get_results, servicer, access)
    )
    methods["WatchResults"] = grpc.unary_stream_rpc_method_handler(
        guarded_stream(watch, gates.watches, partial(observer.ended, "WatchResults"))
    )
    return methods


def _ready_or(
    get_results: Callable[[bytes, Context], Awaitable[bytes]],
    servicer: PrecomputeServicer,
    access: Access | None,
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """GetResults: what can be answered at once is, before the gate, however many wait."""
    clock, seen_ready = time.perf_counter, servicer.observer.ready

    async def get_or_ready(data: bytes, context: Context) -> bytes:
        began = clock()
        ready = _ready(servicer, access, data, context)
        if ready is None or len(ready.data) > SMALL:
            return await get_results(data, context)
        seen_ready(clock() - began, ready.complete)
        return ready.data

    return get_or_ready


def _ready(
    servicer: PrecomputeServicer, access: Access | None, data: bytes, context: Context
) -> Answer | None:
    """A ready result, if this process has it and the caller may read it."""
    if len(data) > _LARGE:
        return None
    try:
        grant = None if access is None else access.grant(context)
        request = pb.GetResultsRequest.FromString(data)
    except (DecodeError, Unauthenticated):
        return None  # the method reports it, as all that is refused
    if grant is not None and not grant.covers(_READ, request.namespace or DEFAULT_NAMESPACE):
        return None
    return servicer.ready_results(request)


def _serialized(response: Any) -> bytes:
    data: bytes = response.SerializeToString()
    return data


def _checks(
    access: Access | None,
) -> tuple[Check | None, Check | None, Check | None, Check | None]:
    """What stands before reading a run, changing one, looking at many, and at the pipelines."""
    if access is None:
        return None, None, None, None
    return (
        access.check_run(Verb.READ),
        access.check_run(Verb.WRITE),
        access.check_many(Verb.READ),
        access.check_known,
    )
