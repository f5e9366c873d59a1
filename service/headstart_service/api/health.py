"""Serves gRPC health, which needs no token: so what one caller can make it hold is bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import grpc
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME

from ..base.service_methods import SERVICE
from ..domain.errors import CapacityExhausted, InvalidRequest, Violation
from .call_limits import CallLimit
from .request_rules import request_from
from .status import guarded, guarded_stream

Context = ServicerContext[Any, Any]

WATCHES: Final = 2000
"""Streams of Health.Watch that a process holds at once; each takes some 20 kB."""
WATCHES_OF_A_CONNECTION: Final = 100
"""How many of them one connection holds: a proxy watches for several clients."""
_MOST_BYTES: Final = 1024
_STATUS: Final = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """Health of the service and of the server as a whole.

    grpc_health's own servicer writes to a watcher inside the lock that `set_serving` takes. So one
    watcher that does not read would keep the status from changing.
    """

    def __init__(
        self, watches: int = WATCHES, of_a_connection: int = WATCHES_OF_A_CONNECTION
    ) -> None:
        """Serve at most so many streams of Watch, and so many of them on one connection."""
        self._status = _STATUS.NOT_SERVING
        self._ended = False
        self._changed = asyncio.Event()
        self.watches = CallLimit("streams of Health.Watch", watches)
        self._of_a_connection = of_a_connection
        self.connections: Counter[str] = Counter()
        """How many streams of Watch each connection has."""

    async def set_serving(self, *, serving: bool) -> None:
        """Report from now on whether a request could be served."""
        if not self._ended:
            self._set(_STATUS.SERVING if serving else _STATUS.NOT_SERVING)

    async def shut_down(self) -> None:
        """Report NOT_SERVING from now on, whatever is set later."""
        self._ended = True
        self._set(_STATUS.NOT_SERVING)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods of grpc.health.v1.Health."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(guarded(self._check, nullcontext())),
            "Watch": grpc.unary_stream_rpc_method_handler(
                guarded_stream(self._watch, nullcontext())
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    def _set(self, status: Any) -> None:
        if status != self._status:
            self._status = status
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _check(self, data: bytes, context: Context) -> bytes:
        if not _is_known(data):
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _response(self._status)

    async def _watch(self, data: bytes, context: Context) -> AsyncGenerator[bytes]:
        known = _is_known(data)
        sent = None
        with self.held(context.peer()):
            while True:
                changed, status = self._changed, self._status
                if not known:
                    status = _STATUS.SERVICE_UNKNOWN
                if status != sent:
                    sent = status
                    yield _response(status)
                await changed.wait()

    @contextmanager
    def held(self, connection: str) -> Iterator[None]:
        """Count one more stream of this connection. Raises CapacityExhausted."""
        with self.watches:
            connections = self.connections
            if connections[connection] >= self._of_a_connection:
                limit = self._of_a_connection
                raise CapacityExhausted(
                    f"{limit} streams of Health.Watch are on this connection", 1
                )
            connections[connection] += 1
            try:
                yield
            finally:
                connections[connection] -= 1
                if not connections[connection]:
                    del connections[connection]


def _is_known(data: bytes) -> bool:
    """Whether it asks for the server or for the service. Raises InvalidRequest."""
    if len(data) > _MOST_BYTES:
        rule = f"must have at most {_MOST_BYTES} bytes, not {len(data)}"
        raise InvalidRequest([Violation("request", rule)])
    service = request_from(health_pb2.HealthCheckRequest, data).service
    return service in ("", SERVICE)


def _response(status: Any) -> bytes:
    data: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return data
