"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from ..open_files import share_of_files
from .access import Access, Check, Verb
from .answer import Answer
from .convert import request_from
from .gate import CallLimits, Gates
from .servicer import Context, PrecomputeServicer
from .status import guarded, guarded_stream

SERVICE = pb.DESCRIPTOR.services_by_name["PrecomputeService"].full_name

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


_MOST_CONNECTIONS = 2**31 - 1
"""What gRPC takes as no limit."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap = Callable[[str, Handler], Handler]
"""Given a method's name and its handler; gives one that does the same, and more beside."""


class Health:
    """gRPC health of the service and of the server as a whole."""

    def __init__(self) -> None:
        self.servicer = HealthServicer()

    async def set_serving(self, *, serving: bool) -> None:
        """Say whether a request could be served now."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ("", SERVICE):
            await self.servicer.set(name, value)

    async def shut_down(self) -> None:
        """Say NOT_SERVING from now on, whatever is set later."""
        await self.servicer.enter_graceful_shutdown()


def build_server(
    servicer: PrecomputeServicer,
    health_service: Health,
    limits: CallLimits | None = None,
    access: Access | None = None,
    *,
    gates: Gates | None = None,
    reflects: bool = True,
    wrap: Wrap | None = None,
) -> Server:
    """A server that is not bound to a port yet; with `access` its calls need a token.

    Give it `gates` instead of `limits` to read them. Each of the service's methods has its handler
    wrapped in `wrap`, if that is given.
    """
    # By default it accepts until the process has no file left.
    connections = min(share_of_files(2), _MOST_CONNECTIONS)
    server = grpc.aio.server(
        options=(*_OPTIONS, ("grpc.max_allowed_incoming_connections", connections))
    )
    methods = _handlers(servicer, gates or Gates(limits or CallLimits()), access)
    if wrap is not None:
        methods = {name: wrap(name, handler) for name, handler in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server  # it ships no types
    add_health(health_service.servicer, server)
    if reflects:
        names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # nor this
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

        self._describe = guarded_stream(checked, nullcontext())

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncGenerator[Any]:  # noqa: N802  # gRPC's name
        async for response in self._describe(requests, context):
            yield response


def _handlers(
    servicer: PrecomputeServicer, gates: Gates, access: Access | None
) -> dict[str, Handler]:
    """The methods by name, each inside its gate and behind its check.

    Errors are caught and tokens checked here: an interceptor would cost more a call. Requests are
    parsed here too: of what gRPC cannot parse it makes UNKNOWN, with the exception's text, and a
    traceback in the log.
    """
    reads, writes, lists, known = _checks(access)
    observer = servicer.observer

    def method(
        call: Callable[..., Any], request: Any, check: Check | None
    ) -> Callable[[bytes, Context], Any]:
        async def parsed(data: bytes, context: Context) -> Any:
            message = request_from(request, data)
            if check is not None:
                check(message, context)
            return await call(message, context)

        return parsed

    def unary(
        name: str, call: Callable[..., Any], request: Any, check: Check | None
    ) -> tuple[str, grpc.RpcMethodHandler[Any, Any]]:
        checked = guarded(method(call, request, check), gates.calls, partial(observer.ended, name))
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            checked, response_serializer=_serialized
        )
        return name, handler

    get_results = guarded(
        method(servicer.get_results, pb.GetResultsRequest, reads),
        gates.waiters,
        partial(observer.ended, "GetResults"),
    )

    async def watch(data: bytes, context: Context) -> AsyncGenerator[bytes]:
        request = request_from(pb.WatchResultsRequest, data)
        if reads is not None:
            reads(request, context)
        async with aclosing(servicer.watch_results(request, context)) as responses:
            async for response in responses:
                yield response

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
        if ready is None:
            return await get_results(data, context)
        seen_ready(clock() - began, ready.complete)
        return ready.data

    return get_or_ready


def _ready(
    servicer: PrecomputeServicer, access: Access | None, data: bytes, context: Context
) -> Answer | None:
    """A ready result, if this process has it and the caller may read it."""
    try:
        request = pb.GetResultsRequest.FromString(data)
    except DecodeError:
        return None  # told by the method, as all that is refused
    if access is not None and not access.may(context, _READ, request.namespace):
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
