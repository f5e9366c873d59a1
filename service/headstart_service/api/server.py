"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection

from headstart.v1 import precompute_pb2 as pb

from .convert import request_from
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


def build_server(servicer: PrecomputeServicer, health_service: Health) -> Server:
    """A server that is not bound to a port yet."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(servicer),))
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server  # it ships no types
    add_health(health_service.servicer, server)
    names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    add_reflection: Any = reflection.enable_server_reflection  # nor does it
    add_reflection(names, server)
    return server


def _handlers(servicer: PrecomputeServicer) -> grpc.GenericRpcHandler:
    """The methods by name. Errors are caught here: an interceptor would cost more a call.

    Requests are parsed here too: of what gRPC cannot parse it makes UNKNOWN, with the exception's
    text, and a traceback in the log.
    """

    def unary(
        method: Callable[..., Any], request: Any, serialize: Callable[[Any], bytes] | None
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def parsed(data: bytes, context: Context) -> Any:
            return await method(request_from(request, data), context)

        return grpc.unary_unary_rpc_method_handler(guarded(parsed), response_serializer=serialize)

    def message(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    async def get_or_ready(data: bytes, context: Context) -> bytes:
        request = request_from(pb.GetResultsRequest, data)
        ready = servicer.ready_results(request)
        return ready if ready is not None else await servicer.get_results(request, context)

    async def watch(data: bytes, context: Context) -> AsyncGenerator[bytes]:
        request = request_from(pb.WatchResultsRequest, data)
        async with aclosing(servicer.watch_results(request, context)) as responses:
            async for response in responses:
                yield response

    methods = {
        "StartPrecompute": unary(servicer.start_precompute, pb.StartPrecomputeRequest, message),
        # Without a serializer the bytes go out as they are.
        "GetResults": grpc.unary_unary_rpc_method_handler(guarded(get_or_ready)),
        "WatchResults": grpc.unary_stream_rpc_method_handler(guarded_stream(watch)),
        "GetStatus": unary(servicer.get_status, pb.GetStatusRequest, message),
        "CancelPrecompute": unary(servicer.cancel_precompute, pb.CancelPrecomputeRequest, message),
        "ListPrecomputes": unary(servicer.list_precomputes, pb.ListPrecomputesRequest, message),
        "ListPipelines": unary(servicer.list_pipelines, pb.ListPipelinesRequest, message),
        "GetStats": unary(servicer.get_stats, pb.GetStatsRequest, message),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)
