"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from .access import Access, Check, Verb
from .convert import request_from
from .gate import CallLimits, Gate
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
)


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
    reflects: bool = True,
    wrap: Wrap | None = None,
) -> Server:
    """A server that is not bound to a port yet; with `access` its calls need a token.

    Each of the service's methods has its handler wrapped in `wrap`, if that is given.
    """
    server = grpc.aio.server(options=_OPTIONS)
    methods = _handlers(servicer, limits or CallLimits(), access)
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
    servicer: PrecomputeServicer, limits: CallLimits, access: Access | None
) -> dict[str, Handler]:
    """The methods by name, each inside its gate and behind its check.

    Errors are caught and tokens checked here: an interceptor would cost more a call. Requests are
    parsed here too: of what gRPC cannot parse it makes UNKNOWN, with the exception's text, and a
    traceback in the log.
    """
    reads, writes, lists, known = _checks(access)
    waiters = Gate("calls of GetResults", limits.waiters)
    watches = Gate("streams of WatchResults", limits.watches)
    calls = Gate("calls", limits.calls)

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
        call: Callable[..., Any], request: Any, check: Check | None
    ) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            guarded(method(call, request, check), calls), response_serializer=_serialized
        )

    get_results = guarded(method(servicer.get_results, pb.GetResultsRequest, reads), waiters)

    async def get_or_ready(data: bytes, context: Context) -> bytes:
        # Before the gate: what can be answered at once is answered however many wait.
        ready = _ready(servicer, access, data, context)
        return ready if ready is not None else await get_results(data, context)

    async def watch(data: bytes, context: Context) -> AsyncGenerator[bytes]:
        request = request_from(pb.WatchResultsRequest, data)
        if reads is not None:
            reads(request, context)
        async with aclosing(servicer.watch_results(request, context)) as responses:
            async for response in responses:
                yield response

    return {
        "StartPrecompute": unary(servicer.start_precompute, pb.StartPrecomputeRequest, writes),
        # Without a serializer the bytes go out as they are.
        "GetResults": grpc.unary_unary_rpc_method_handler(get_or_ready),
        "WatchResults": grpc.unary_stream_rpc_method_handler(guarded_stream(watch, watches)),
        "GetStatus": unary(servicer.get_status, pb.GetStatusRequest, reads),
        "CancelPrecompute": unary(servicer.cancel_precompute, pb.CancelPrecomputeRequest, writes),
        "ListPrecomputes": unary(servicer.list_precomputes, pb.ListPrecomputesRequest, lists),
        "ListPipelines": unary(servicer.list_pipelines, pb.ListPipelinesRequest, known),
        "GetStats": unary(servicer.get_stats, pb.GetStatsRequest, lists),
    }


def _ready(
    servicer: PrecomputeServicer, access: Access | None, data: bytes, context: Context
) -> bytes | None:
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
