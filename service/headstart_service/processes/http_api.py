"""Composes the API over HTTP, with the same rules as over gRPC."""

from __future__ import annotations

import asyncio

from grpc.aio import Server

from ..api.call_limits import CallLimits
from ..api.dependencies import Dependencies
from ..api.results.outgoing import Outgoing
from ..auth.grants import Grants
from ..base.listening import is_loopback
from ..config.settings import Settings
from ..http.connect.access import Access
from ..http.connect.attempt import TraceCall, untraced
from ..http.connect.service import ConnectRules, ConnectService


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
        open=settings.insecure or local,
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


async def drain(server: Server, over_http: ConnectService | None, grace: float) -> None:
    """Take no new calls over either transport, and give those under way their time."""
    async with asyncio.TaskGroup() as group:
        if over_http is not None:
            group.create_task(over_http.drain(grace), name="drain HTTP")
        await server.stop(grace)
