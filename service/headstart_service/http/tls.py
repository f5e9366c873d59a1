"""TLS on an HTTP port, with bounds that hold from the first byte on.

asyncio's own TLS server counts no connection before its handshake, so silent ones could take every
file of the process. Here each has its place in the port's Room at once, and ten seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from .connections import HEAD_TIMEOUT, BoundedConnection

Context = Callable[[], ssl.SSLContext]
"""Returns the context for a new connection: a renewed certificate has another one."""

_HANDSHAKE: Final = HEAD_TIMEOUT


class TlsConnection(asyncio.Protocol):
    """A connection until its handshake has ended; then uvicorn's protocol takes its place."""

    inner: type[BoundedConnection]
    context: Context
    idle = True

    def __init__(self, **uvicorn: Any) -> None:
        """Make the protocol that speaks HTTP, with what uvicorn gives it."""
        self._http = self.inner(**uvicorn)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.since = self._loop.time()
        self.transport: asyncio.Transport
        self._early = bytearray()
        """What came before the protocol was there that it is for: of TLS, then of HTTP."""
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place in the room, and begin the handshake."""
        self.transport = cast("asyncio.Transport", transport)
        # What comes from now on is the handshake's. uvloop reads once more all the same.
        self.transport.pause_reading()
        self._http.connections.add(self)  # type: ignore[arg-type]
        self._http.room.enter(self, self._http.connections)
        self._task = self._loop.create_task(self._shake_hands(), name="TLS handshake")

    def data_received(self, data: bytes) -> None:
        """Keep what a caller sends with its first bytes, or right behind its handshake."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back: the connection has ended before HTTP began."""
        del exc
        self._lost = True
        self._left()

    def shutdown(self) -> None:
        """End at once: uvicorn stops."""
        self.transport.abort()

    async def _shake_hands(self) -> None:
        shaking = self._loop.create_task(
            self._loop.start_tls(
                self.transport,
                self,
                self.context(),
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE,
            )
        )
        # Now start_tls runs up to its wait, and then its callbacks do, before the next bytes come.
        await asyncio.sleep(0)
        self._loop.call_soon(self._replay, bytes(self._early))
        self._early.clear()
        try:
            made = await shaking
        except (OSError, ssl.SSLError):  # a peer that speaks no TLS, is late or has gone
            self.transport.abort()
            return
        finally:
            self._left()
        if made is None or self._lost:
            return
        made.set_protocol(self._http)
        self._http.connection_made(made)
        if self._early:
            self._http.data_received(bytes(self._early))

    def _replay(self, data: bytes) -> None:
        """Give TLS's protocol what came before it."""
        tls = cast("asyncio.BufferedProtocol", self.transport.get_protocol())
        while data:
            buffer = memoryview(tls.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            tls.buffer_updated(size)
            data = data[size:]

    def _left(self) -> None:
        self._http.connections.discard(self)


def tls_connections(inner: type[BoundedConnection], context: Context) -> type[TlsConnection]:
    """Return the protocol of a port whose connections speak TLS."""
    return type("Connection", (TlsConnection,), {"inner": inner, "context": staticmethod(context)})
