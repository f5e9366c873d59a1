"""Serves liveness and readiness over HTTP."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from ..base.listening import listen
from ..domain.errors import StartupError
from .connections import BACKLOG, Room, connections_of, most_connections
from .readiness import Readiness
from .tls import Context, tls_connections

_THEIRS = frozenset(
    {
        "Invalid HTTP request received.",
        # Logged when a live page whose reader takes no bytes is dropped in its answer.
        "ASGI callable returned without completing response.",
    }
)


class _NotOurMistake(logging.Filter):
    """Keeps out of the log what anybody can write there by sending bytes that are no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        spoken_wrongly = isinstance(error, h11.ProtocolError)
        return not (spoken_wrongly or record.msg in _THEIRS)


class _Server(uvicorn.Server):
    """Leaves signals to the process that owns it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


_NOT_OUR_MISTAKE = _NotOurMistake()


@asynccontextmanager
async def http_server(
    host: str,
    port: int,
    readiness: Callable[[], Readiness],
    routes: Sequence[BaseRoute] = (),
    *,
    or_any_port: bool = False,
    room: Room | None = None,
    tls: Context | None = None,
    setting: str = "HEADSTART_HTTP_PORT",
) -> AsyncIterator[int]:
    """Serve while the context is open; gives the bound port.

    `GET /livez` is 200 as long as the process answers, whatever the store does; `GET /readyz` is
    200 while `readiness()` is ready, else 503, with its line. `routes` are what else there is. When
    the port is taken, `or_any_port` takes a free one; without it StartupError is raised. `room`
    bounds the connections, by default to a quarter of the files that the process may open. With
    `tls` the port speaks nothing else. Errors name the port by its `setting`.
    """

    async def livez(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> PlainTextResponse:
        found = readiness()
        return PlainTextResponse(f"{found.line}\n", status_code=200 if found.ready else 503)

    app = Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), *routes])
    bound = _listen(host, port, setting, or_any_port=or_any_port)
    connections = connections_of(room or Room(most_connections()))
    for logger in ("uvicorn.error", "asyncio"):
        logging.getLogger(logger).addFilter(_NOT_OUR_MISTAKE)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        # A class of protocols, though not of uvicorn's own.
        http=cast("Any", connections if tls is None else tls_connections(connections, tls)),
        # The event loop accepts so many connections at once, before `Room` counts them.
        backlog=BACKLOG,
        # The peer is the connected address, whatever its headers claim.
        proxy_headers=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=bound), name="http server")
    try:
        yield bound[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def _listen(host: str, port: int, setting: str, *, or_any_port: bool) -> list[socket.socket]:
    """Listening sockets. Made here, because uvicorn leaves the process when it cannot bind."""
    try:
        return listen(host, port)
    except OSError as error:
        if or_any_port and error.errno == errno.EADDRINUSE:
            return listen(host, 0)
        taken = "another process has it; stop that, or give another port (0: any free one)"
        why = taken if error.errno == errno.EADDRINUSE else error.strerror
        raise StartupError(f"{setting}: cannot listen on {host} port {port}: {why}") from error
    except (ValueError, TypeError) as error:
        raise StartupError(f"HEADSTART_HOST: {host!r:.100} is no host: {error}") from error
