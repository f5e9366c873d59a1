"""Serves liveness and readiness over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ..errors import StartupError


class _Server(uvicorn.Server):
    """Leaves signals to the process that owns it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(host: str, port: int, ready: Callable[[], bool]) -> AsyncIterator[int]:
    """Serve while the context is open; gives the bound port.

    `GET /livez` is 200 as long as the process answers, whatever the store does; `GET /readyz` is
    200 while `ready()`, else 503. Raises StartupError when the port is taken.
    """

    async def livez(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> PlainTextResponse:
        if ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=503)

    app = Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz)])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Bound here: uvicorn would leave the process when it cannot.
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StartupError(
            f"HEADSTART_HTTP_PORT: cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]), name="http server")
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        await task
