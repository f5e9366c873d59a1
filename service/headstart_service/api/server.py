"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import nullcontext
from typing import Any

import grpc
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from .access import Access, Check, Verb
from .gate import CallLimits, Gate
from .servicer import Context, PrecomputeServicer
from .status import guarded, guarded_stream

SERVICE = pb.DESCRIPTOR.services_by_name["PrecomputeService"].full_name

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
) -> Server:
    """A server that is not bound to a port yet; with `access` its calls need a token."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(servicer, limits or CallLimits(), access),))
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
        check = None if access is None else access.check_known
        describe: Any = super().ServerReflectionInfo
        self._describe = guarded_stream(describe, nullcontext(), check)

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncGenerator[Any]:  # noqa: N802  # gRPC's name
        async for response in self._describe(requests, context):
            yield response


def _handlers(
    servicer: PrecomputeServicer, limits: CallLimits, access: Access | None
) -> grpc.GenericRpcHandler:
    """The methods by name, each behind its check when tokens are asked for.

    Errors are caught and tokens checked here: an interceptor would cost more a call.
    """
    reads, writes, lists, known = _checks(access)
    waiters = Gate("calls of GetResults", limits.waiters)
    watches = Gate("streams of WatchResults", limits.watches)
    calls = Gate("calls", limits.calls)

    def unary(
        method: Callable[..., Any],
        request: Any,
        check: Check | None,
        serialize: Callable[[Any], bytes] | None,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            guarded(method, calls, check),
            request_deserializer=request.FromString,
            response_serializer=serialize,
        )

    def message(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    get_results = guarded(servicer.get_results, waiters, reads)

    async def get_or_ready(request: pb.GetResultsRequest, context: Context) -> bytes:
        # Before the gate: what can be answered at once is answered however many wait.
        ready = servicer.ready_results(request)
        return ready if ready is not None else await get_results(request, context)

    read = Verb.READ

    async def get_if_granted(request: pb.GetResultsRequest, context: Context) -> bytes:
        assert access is not None
        if access.may(context, read, request.namespace):
            return await get_or_ready(request, context)
        return await get_results(request, context)  # which refuses it

    start, cancel = pb.StartPrecomputeRequest, pb.CancelPrecomputeRequest
    listing, pipelines = pb.ListPrecomputesRequest, pb.ListPipelinesRequest
    methods = {
        "StartPrecompute": unary(servicer.start_precompute, start, writes, message),
        # Without a serializer the bytes go out as they are.
        "GetResults": grpc.unary_unary_rpc_method_handler(
            get_or_ready if access is None else get_if_granted,
            request_deserializer=pb.GetResultsRequest.FromString,
        ),
        "WatchResults": grpc.unary_stream_rpc_method_handler(
            guarded_stream(servicer.watch_results, watches, reads),
            request_deserializer=pb.WatchResultsRequest.FromString,
            response_serializer=None,
        ),
        "GetStatus": unary(servicer.get_status, pb.GetStatusRequest, reads, message),
        "CancelPrecompute": unary(servicer.cancel_precompute, cancel, writes, message),
        "ListPrecomputes": unary(servicer.list_precomputes, listing, lists, message),
        "ListPipelines": unary(servicer.list_pipelines, pipelines, known, message),
        "GetStats": unary(servicer.get_stats, pb.GetStatsRequest, lists, message),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


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
