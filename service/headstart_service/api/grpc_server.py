"""The gRPC server: its options, its handlers, health and reflection."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
from grpc.aio import Server, ServicerContext
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from ..auth.grants import Grant, Grants, authorization_of
from ..base.connection_age import longest
from ..base.open_files import share_of_files
from ..base.service_methods import SERVICE
from ..domain import RunKey
from ..domain.errors import HeadstartError, InvalidRequest, PermissionDenied, Unauthenticated
from .call_limits import CallLimit, CallLimits
from .call_observer import CallObserver
from .dependencies import LARGE_REQUEST, Call, Dependencies
from .health import Health
from .method_table import METHOD_TABLE, Method
from .methods.get_results import MAX_WAIT, GetResults
from .refusals import REFUSED
from .request_rules import request_from, run_key
from .results.answer import Answer
from .results.outgoing import SMALL, Outgoing, Parts
from .status import Refused, guarded, guarded_stream, unlogged

Context = ServicerContext[Any, Any]

_REFLECTIONS = 100
"""Streams of reflection that a process holds at once."""
_REFUSALS = (InvalidRequest, Unauthenticated, PermissionDenied)
"""What `admitted` raises."""

SERVER_OPTIONS = (
    # Two servers must not silently share a port.
    ("grpc.so_reuseport", 0),
    # A burst of waiters is the normal case here; by default one of 1,000 calls is cancelled.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Backends keep idle connections alive behind load balancers that drop them silently.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A connection without HTTP/2 holds a file descriptor: by default for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
)


_MORE_STREAMS = 1000
"""Streams of a connection beyond the places that there are."""
_MOST_CONNECTIONS = 2**31 - 1
"""What gRPC takes as no limit."""

_AGE_MARGIN: Final = 30.0
"""Seconds that a call may take beyond its longest wait, on a connection that takes no new ones."""

Admitted: TypeAlias = tuple[Any, Grant | None]
"""A parsed request, and what its caller's token grants; None where no tokens are needed."""
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap = Callable[[str, RpcHandler], RpcHandler]
"""Takes a method's name and its handler; returns a handler that does the same and more."""


def build_server(
    api: Dependencies,
    health_service: Health,
    limits: CallLimits | None = None,
    grants: Grants | None = None,
    *,
    outgoing: Outgoing | None = None,
    reflects: bool = True,
    wrap: Wrap | None = None,
) -> Server:
    """Return a server that is not bound to a port yet; with `grants` its calls need a token.

    `outgoing` bounds its large responses. `wrap` wraps the handler of each method of the service.
    """
    # By default gRPC accepts connections until the process has no file descriptor left.
    connections = min(share_of_files(2), _MOST_CONNECTIONS)
    limits = limits or CallLimits()
    server = grpc.aio.server(
        options=(
            *SERVER_OPTIONS,
            ("grpc.max_allowed_incoming_connections", connections),
            # One connection may use all slots. A call beyond them is refused, not queued.
            ("grpc.max_concurrent_streams", limits.total + _MORE_STREAMS),
            *age_options(api.rules.max_connection_age),
        )
    )
    handlers = rpc_handlers(api, limits, grants, outgoing or Outgoing())
    if wrap is not None:
        handlers = {name: wrap(name, handler) for name, handler in handlers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_generic_rpc_handlers((health_service.handlers(),))
    if reflects:
        names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        add_reflection: Any = (
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        )  # it ships no types
        refused = _refused(api, grants, reflection.SERVICE_NAME)
        add_reflection(Reflection(names, grants, refused), server)
    return server


def age_options(age: float) -> Sequence[tuple[str, int]]:
    """Return the options by which clients connect again after `age` seconds; 0 is never.

    Calls under way go on, each longer than any wait, so none of them fails. A watch ends by itself.
    gRPC varies the age by a tenth.
    """
    if not age:
        return ()
    grace = max(MAX_WAIT, longest(age)) + _AGE_MARGIN
    return (
        ("grpc.max_connection_age_ms", round(age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(grace * 1000)),
    )


class Reflection(reflection.aio.ReflectionServicer):
    """Reflection, for callers with any token when tokens are required."""

    def __init__(
        self, names: Sequence[str], grants: Grants | None, refused: Refused | None = None
    ) -> None:
        super().__init__(names)  # type: ignore[no-untyped-call]
        describe: Any = super().ServerReflectionInfo

        async def checked(requests: Any, context: Context) -> AsyncGenerator[Any]:
            if grants is not None:
                grants.of_call(context)
            async for response in describe(requests, context):
                yield response

        self._describe = guarded_stream(
            checked,
            CallLimit("streams of reflection", _REFLECTIONS),
            refused=refused or unlogged,
        )

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncGenerator[Any]:  # noqa: D102, N802  # gRPC's name
        async for response in self._describe(requests, context):
            yield response


def rpc_handlers(
    api: Dependencies, limits: CallLimits, grants: Grants | None, outgoing: Outgoing
) -> dict[str, RpcHandler]:
    """Return a handler for each method of the table, inside its limit and behind its check.

    Errors are caught and tokens checked here: an interceptor would cost more a call. Requests are
    parsed here too, and only with a token that is accepted. Parsing 4 MB takes 0.2 s, during which
    the process does nothing else, in a thread neither. gRPC would answer a request that it cannot
    parse with UNKNOWN and the exception's text, and log a traceback.
    """
    return {
        name: _rpc_handler(method, api, limits, grants, outgoing)
        for name, method in METHOD_TABLE.items()
    }


def _rpc_handler(
    method: Method,
    api: Dependencies,
    limits: CallLimits,
    grants: Grants | None,
    outgoing: Outgoing,
) -> RpcHandler:
    handler = method.handler(api)
    handle: Callable[[Any, Call], Any] = handler.handle
    limit = limits.by_kind[method.kind]
    ended = partial(api.observer.ended, method.name)
    kind, check = method.request, method.check
    refused = _refused(api, grants, method.name, kind)

    def admitted(data: bytes, context: Context) -> Admitted:
        """Return the parsed request, if the caller's token covers it. Raises `_REFUSALS`."""
        if grants is None:
            return request_from(kind, data), None
        grant = grants.of_call(context)
        request = request_from(kind, data)
        check(request, grant)
        return request, grant

    if method.streams:

        async def stream(data: bytes, context: Context) -> AsyncGenerator[bytes]:
            request, grant = admitted(data, context)
            known = Call(context.time_remaining(), grant)
            async with aclosing(handle(request, known)) as responses:
                async for response in responses:
                    # gRPC reads the next response when it has written this one.
                    async with outgoing.sending(response.data, context):
                        yield response.data

        return grpc.unary_stream_rpc_method_handler(guarded_stream(stream, limit, ended, refused))

    async def respond(admitted: Admitted, context: Context) -> Any:
        request, grant = admitted
        response = await handle(request, Call(context.time_remaining(), grant))
        if isinstance(response, bytes | Parts):
            return await outgoing.admit(response, context)
        return response

    async def call(data: bytes, context: Context) -> Any:
        return await respond(admitted(data, context), context)

    served = guarded(call, limit, ended, refused)
    if isinstance(handler, GetResults):
        # Without a serializer the bytes go out as they are.
        ready = _ready_or(
            served, handler.ready, admitted, guarded(respond, limit, ended, refused), api.observer
        )
        return grpc.unary_unary_rpc_method_handler(ready)
    return grpc.unary_unary_rpc_method_handler(served, response_serializer=_serialized)


def _ready_or(
    served: Callable[[bytes, Context], Awaitable[bytes]],
    ready: Callable[[pb.GetResultsRequest], Answer | None],
    admitted: Callable[[bytes, Context], Admitted],
    respond: Callable[[Admitted, Context], Awaitable[bytes]],
    observer: CallObserver,
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """Return GetResults that answers with what is `ready` in memory, outside the limit.

    What is not ready goes to `respond`, within the limit, and a request that is large or that
    `admitted` refuses to `served`.
    """
    clock, note_ready = time.perf_counter, observer.ready

    async def get_or_ready(data: bytes, context: Context) -> bytes:
        began = clock()
        if len(data) > LARGE_REQUEST:
            return await served(data, context)
        try:
            known = admitted(data, context)
        except _REFUSALS:
            return await served(data, context)
        answer = ready(known[0])
        if answer is None or len(answer.data) > SMALL:
            return await respond(known, context)
        note_ready(clock() - began, answer.complete)
        return answer.data

    return get_or_ready


def _refused(api: Dependencies, grants: Grants | None, method: str, kind: Any = None) -> Refused:
    """Return what logs refused calls of a method, whose requests are of this `kind`."""

    def refused(error: HeadstartError, given: Any, context: Context) -> None:
        if not isinstance(error, REFUSED):
            return
        known = not isinstance(error, Unauthenticated)
        api.refusals.note(
            method,
            error,
            token=grants.name_of(authorization_of(context)) if grants and known else "",
            peer=context.peer(),
            run=lambda: _run_of(error, given, kind),
        )

    return refused


def _run_of(error: HeadstartError, given: Any, kind: Any) -> RunKey | None:
    """Return the run that a refused call is about, unless finding it costs time."""
    if isinstance(given, tuple):  # it was parsed, and admitted
        given = given[0]
    elif isinstance(error, Unauthenticated) or kind is None or len(given) > LARGE_REQUEST:
        return None
    else:
        try:
            given = request_from(kind, given)
        except InvalidRequest:  # a call beyond its limit is refused before it is read
            return None
    return run_key(given) if hasattr(given, "key") else None


def _serialized(response: Any) -> bytes:
    data: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return data
