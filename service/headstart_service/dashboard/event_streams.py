"""Send one snapshot a second, shared by all viewers, as server-sent events to bounded queues."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from ..domain.errors import CapacityExhausted, HeadstartError, PermissionDenied
from .access import HEADERS, View
from .snapshots import Snapshots

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 32
_DEPTH: Final = 4
"""Events that wait for a slow client before it is dropped."""
_SEND: Final = 10.0
"""Seconds within which a client must take an event."""


class Stream:
    """One client's events."""

    def __init__(self, view: View, allowed: Callable[[], object]) -> None:
        """`allowed` is called once a second, and raises when the client may look no more."""
        self.view = view
        self.allowed = allowed
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(_DEPTH)
        self.fresh = True
        """Whether it has yet to be sent anything."""

    def put(self, event: bytes) -> bool:
        """Have it sent; False when the client has not taken those before."""
        with suppress(asyncio.QueueFull):
            self._events.put_nowait(event)
            return True
        return False

    def end(self, event: bytes | None = None) -> None:
        """Send no more than this, and nothing that still waits."""
        while not self._events.empty():
            self._events.get_nowait()
        if event is not None:
            self._events.put_nowait(event)
        self._events.put_nowait(None)

    async def events(self) -> AsyncGenerator[bytes]:
        """What is to be sent, until the end."""
        while (event := await self._events.get()) is not None:
            yield event


class Streams:
    """All clients of a process."""

    def __init__(self, snapshots: Snapshots, limit: int = MAX_STREAMS) -> None:
        self._snapshots = snapshots
        self._limit = limit
        self._open: set[Stream] = set()
        self._joined = asyncio.Event()
        self._ended = False
        self._failing: set[View] = set()
        """Views of which it was logged that they cannot be made."""

    @property
    def watched(self) -> bool:
        """Whether there is a viewer."""
        return bool(self._open)

    def open(self, view: View, allowed: Callable[[], object]) -> Stream:
        """A new client's. Raises CapacityExhausted when there are too many, or soon none."""
        if self._ended:
            raise CapacityExhausted("this process stops", 1.0)
        if len(self._open) >= self._limit:
            raise CapacityExhausted(f"{self._limit} pages are open already", 5.0)
        stream = Stream(view, allowed)
        self._open.add(stream)
        self._joined.set()
        return stream

    def close(self, stream: Stream) -> None:
        """It has gone."""
        self._open.discard(stream)

    async def joined(self, within: float) -> None:
        """Return when a viewer joins, or after `within` seconds."""
        self._joined.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._joined.wait()

    async def publish(self, *, fresh_only: bool) -> None:
        """Send each its snapshot; with `fresh_only`, to those who came just now."""
        wanted = [s for s in self._open if s.fresh or not fresh_only]
        self._failing.intersection_update({stream.view for stream in self._open})
        for view in {stream.view for stream in wanted}:
            try:
                await self._publish(view, wanted)
                self._failing.discard(view)
            except Exception:
                # Other views get theirs all the same, and the log gets one line, not one a second.
                if view not in self._failing:
                    log.exception("the live page of %s cannot be made", _whose(view))
                self._failing.add(view)

    async def _publish(self, view: View, wanted: list[Stream]) -> None:
        snapshot = await self._snapshots.take(view)
        event = _event("tick", snapshot)
        for stream in wanted:
            if stream.view == view and stream in self._open:
                self._send(stream, event, snapshot)

    def _send(self, stream: Stream, event: bytes, snapshot: dict[str, Any]) -> None:
        try:
            stream.allowed()
        except HeadstartError as error:
            code = 403 if isinstance(error, PermissionDenied) else 401
            stream.end(_event("refused", {"code": code, "message": str(error)}))
            self.close(stream)
            return
        if stream.fresh:
            stream.fresh = False
            event = _event("tick", snapshot | {"history": self._snapshots.history(stream.view)})
        if not stream.put(event):
            log.info("a live page that does not take its events is dropped")
            stream.end()
            self.close(stream)

    def end(self) -> None:
        """Say goodbye to every viewer, and let none in: the process stops, and feeds none more."""
        self._ended = True
        for stream in list(self._open):
            stream.end(_event("bye", {}))
            self.close(stream)


class EventResponse:
    """An answer of events; an ASGI application."""

    def __init__(self, streams: Streams, stream: Stream) -> None:
        self._streams = streams
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until either side ends."""
        del scope
        gone = asyncio.create_task(self._gone(receive), name="live page")
        try:
            headers = {**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            async for event in self._stream.events():
                async with asyncio.timeout(_SEND):
                    await _body(send, event, more=True)
            async with asyncio.timeout(_SEND):
                await _body(send, b"", more=False)
        except (TimeoutError, OSError):
            pass  # the viewer has gone, or takes no bytes
        finally:
            self._streams.close(self._stream)
            gone.cancel()

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._streams.close(self._stream)
        self._stream.end()


async def _body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def _whose(view: View) -> str:
    return "all namespaces" if view.scope is None else ", ".join(sorted(view.scope))


def _event(name: str, content: dict[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return f"event: {name}\ndata: {text}\n\n".encode()
