"""Bounds the connections of the HTTP port: how many there are, how old, how long silent.

One connection more than the limit ends the oldest idle one, so a probe always gets in.
"""

from __future__ import annotations

import asyncio
import logging
import socket as tcp
from contextlib import suppress
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..base.connection_age import age_of_one
from ..base.open_files import share_of_files

log = logging.getLogger(__name__)

HEAD_TIMEOUT: Final = 10.0
"""Seconds within which a connection sends the next request's whole head."""
BACKLOG: Final = 64
"""Connections that the kernel holds ready, which the loop may accept in one turn."""
_MOST: Final = 512
"""Connections of probes, scrapes and pages."""
_STALL: Final = 30.0
"""Seconds within which the other end takes some of what was sent to it."""
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}
"""A peer that is gone without a word, during a long wait, is noticed within two minutes."""
_WARN_EVERY: Final = 60.0
"""Seconds between two log lines about connections that were closed."""


def most_connections(calls: int = 0) -> int:
    """Return how many connections the HTTP port holds at once, with so many calls of the API."""
    return min(_MOST + calls, share_of_files(4))


class Held(Protocol):
    """What a room knows of a connection."""

    since: float
    """When it became idle or its request began, in loop time."""


class Room:
    """The connections of one port."""

    def __init__(
        self,
        limit: int,
        head_timeout: float = HEAD_TIMEOUT,
        stall: float = _STALL,
        *,
        age: float = 0.0,
    ) -> None:
        """Hold at most `limit` connections; close each that is idle for `head_timeout` seconds.

        End each whose peer takes nothing of its answer for `stall` seconds. Close each with its
        first answer after some `age` seconds; 0 is never.
        """
        self.limit = limit
        self.age = age
        self.head_timeout = head_timeout
        self.stall = stall
        self._warned = -_WARN_EVERY

    def enter(self, new: Held, connections: set[Any]) -> None:
        """Close another connection if there are too many: the oldest idle one, else the oldest."""
        if len(connections) <= self.limit:
            return
        now = new.since
        oldest = min(connections - {new}, key=lambda each: (not each.idle, each.since))
        connections.discard(oldest)
        oldest.transport.abort()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            log.warning(
                "the HTTP port has its most connections, %d: each new one ends the oldest idle one",
                self.limit,
            )


class BoundedConnection(H11Protocol):
    """One connection of a port that has a Room."""

    room: Room
    """The port's; set by a subclass."""
    since = 0.0
    """When it became idle or its request began, in loop time."""
    old_at: float | None = None
    """When it takes no further request, in loop time."""
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it has no request that waits for its answer."""
        # Before the first request uvicorn has no cycle, against its annotation.
        cycle = cast("Any", self.cycle)
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer, and make room if there are too many connections."""
        super().connection_made(transport)
        _keep_alive(transport.get_extra_info("socket"))
        self._await_head()
        if (age := age_of_one(self.room.age)) is not None:
            self.old_at = self.since + age
        self.room.enter(self, self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        self._stop_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer of a peer that takes nothing."""
        super().pause_writing()
        self._stop_stall()
        self._stalled = self.loop.call_later(self.room.stall, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it: the peer has taken some."""
        self._stop_stall()
        super().resume_writing()

    def handle_events(self) -> None:
        """Stop the timer when a request has begun."""
        super().handle_events()
        if self._timer is not None and not self.idle:
            self._stop_timer()
            self.since = self.loop.time()
            if self.old_at is not None and self.since >= self.old_at:
                # The answer announces the end, so that its client sends nothing more here.
                self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]

    def on_response_complete(self) -> None:
        """Start the timer for the next request's head."""
        self._await_head()
        super().on_response_complete()

    def _await_head(self) -> None:
        self._stop_timer()
        self.since = self.loop.time()
        self._timer = self.loop.call_later(self.room.head_timeout, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _keep_alive(socket: Any) -> None:
    """Have the kernel probe a silent peer, where it can."""
    with suppress(OSError):
        socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if hasattr(tcp, name):
                socket.setsockopt(tcp.IPPROTO_TCP, getattr(tcp, name), value)


def connections_of(room: Room) -> type[BoundedConnection]:
    """Return the protocol of a port that has this room."""
    return type("Connection", (BoundedConnection,), {"room": room})
