"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection

from headstart.v1 import precompute_pb2 as pb

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
    servicer: PrecomputeServicer, health_service: Health, limits: CallLimits | None = None
) -> Server:
    """A server that is not bound to a port yet."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(servicer, limits or CallLimits()),))
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server  # it ships no types
    add_health(health_service.servicer, server)
    names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    add_reflection: Any = reflection.enable_server_reflection  # nor does it
    add_reflection(names, server)
    return server


def _handlers(servicer: PrecomputeServicer, limits: CallLimits) -> grpc.GenericRpcHandler:
    """The methods by name. Errors are caught here: an interceptor would cost more a call."""
    waiters = Gate("calls of GetResults", limits.waiters)
    watches = Gate("streams of WatchResults", limits.watches)
    calls = Gate("calls", limits.calls)

    def unary(
        method: Callable[..., Any], request: Any, serialize: Callable[[Any], bytes] | None
    ) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            guarded(method, calls),
            request_deserializer=request.FromString,
            response_serializer=serialize,
        )

    def message(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    get_results = guarded(servicer.get_results, waiters)

    async def get_or_ready(request: pb.GetResultsRequest, context: Context) -> bytes:
        # Before the gate: what can be answered at once is answered however many wait.
        ready = servicer.ready_results(request)
        return ready if ready is not None else await get_results(request, context)

    methods = {
        "StartPrecompute": unary(servicer.start_precompute, pb.StartPrecomputeRequest, message),
        # Without a serializer the bytes go out as they are.
        "GetResults": grpc.unary_unary_rpc_method_handler(
            get_or_ready, request_deserializer=pb.GetResultsRequest.FromString
        ),
        "WatchResults": grpc.unary_stream_rpc_method_handler(
            guarded_stream(servicer.watch_results, watches),
            request_deserializer=pb.WatchResultsRequest.FromString,
            response_serializer=None,
        ),
        "GetStatus": unary(servicer.get_status, pb.GetStatusRequest, message),
        "CancelPrecompute": unary(servicer.cancel_precompute, pb.CancelPrecomputeRequest, message),
        "ListPrecomputes": unary(servicer.list_precomputes, pb.ListPrecomputesRequest, message),
        "ListPipelines": unary(servicer.list_pipelines, pb.ListPipelinesRequest, message),
        "GetStats": unary(servicer.get_stats, pb.GetStatsRequest, message),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)
