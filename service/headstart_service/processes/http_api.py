"""Composes the API over HTTP, with the same rules as over gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from grpc.aio import Server
from starlette.routing import BaseRoute

from ..api.call_limits import CallLimits
from ..api.dependencies import Dependencies
from ..api.results.outgoing import Outgoing
from ..auth.grants import Grants
from ..auth.server_certificate import ServerCertificate
from ..base.listening import is_loopback, url_host
from ..config.settings import Settings
from ..http.connect.access import Access
from ..http.connect.attempt import TraceCall, untraced
from ..http.connect.service import ConnectRules, ConnectService
from ..http.connections import Room, most_connections
from ..http.readiness import Readiness
from ..http.server import http_server
from .exposure import http_is_open

log = logging.getLogger(__name__)


def http_api(
    settings: Settings,
    api: Dependencies,
    limits: CallLimits,
    grants: Grants | None,
    outgoing: Outgoing,
    trace: TraceCall | None,
) -> ConnectService | None:
    """Build the API over HTTP, or return None where it is switched off."""
    if not settings.connect:
        return None
    local = is_loopback(settings.host)
    access = Access(
        host=settings.host,
        tokens=grants is not None,
        local=local,
        open=http_is_open(settings, tls=connect_tls(settings)),
        origins=settings.cors_origins,
    )
    rules = ConnectRules(
        api=api,
        limits=limits,
        access=access,
        grants=grants,
        outgoing=outgoing,
        trace=trace or untraced,
    )
    return ConnectService(rules)


def connect_tls(settings: Settings) -> bool:
    """Whether the port of the API over HTTP speaks TLS."""
    if settings.connect_port is None:
        return settings.http_tls
    return settings.tls_cert is not None


@asynccontextmanager
async def http_ports(
    settings: Settings,
    readiness: Callable[[], Readiness],
    routes: Sequence[BaseRoute],
    over_http: ConnectService | None,
    limits: CallLimits,
    tls: ServerCertificate | None,
) -> AsyncIterator[int]:
    """Serve `routes`, and the API on the same or its own port; gives the HTTP port."""
    api = over_http.routes() if over_http else []
    own = settings.connect_port
    context = tls.context if tls else None
    shared = [] if own is not None else api
    calls = limits.total if shared else 0
    age = settings.max_connection_age
    async with AsyncExitStack() as stack:
        if own is not None and api:
            port = await stack.enter_async_context(
                http_server(
                    settings.host,
                    own,
                    readiness,
                    api,
                    room=Room(most_connections(limits.total), age=age),
                    tls=context,
                    setting="HEADSTART_CONNECT_PORT",
                )
            )
            log.info("the API over HTTP on %s:%d", url_host(settings.host), port)
        yield await stack.enter_async_context(
            http_server(
                settings.host,
                settings.http_port,
                readiness,
                [*routes, *shared],
                room=Room(most_connections(calls), age=age),
                tls=context if settings.http_tls else None,
            )
        )


async def drain(server: Server, over_http: ConnectService | None, grace: float) -> None:
    """Take no new calls over either transport, and give those under way their time."""
    async with asyncio.TaskGroup() as group:
        if over_http is not None:
            group.create_task(over_http.drain(grace), name="drain HTTP")
        await server.stop(grace)
