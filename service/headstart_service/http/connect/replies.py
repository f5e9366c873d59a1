"""Sends answers: whole ones, and streams of enveloped messages.

A large message goes out in parts. So a slow caller holds back its own stream, and the process holds
little more than one part for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.rpc import status_pb2
from starlette.types import Send

from .bodies import envelope
from .codecs import json_bytes
from .errors import error_json, headers_of, http_status_of

_PART: Final = 64 * 1024
HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Of every answer."""
_COMMON: Final = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class UnaryReply:
    """The answer to a unary call."""

    def __init__(self, send: Send, codec: str) -> None:
        self._send = send
        self._type = f"application/{codec}"
        self._begun = False

    async def message(self, data: bytes) -> None:
        """Send the response."""
        await self._whole(200, self._type, data, {})

    async def end(self) -> None:
        """Do nothing: a unary answer ends with its message."""

    async def fail(
        self,
        status: status_pb2.Status,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send an error; behind a response that is half sent, nothing."""
        if self._begun:
            return
        sent = {**headers_of(status), **(headers or {})}
        code = http_status or http_status_of(status)
        await self._whole(code, "application/json", json_bytes(error_json(status)), sent)

    async def _whole(
        self, http_status: int, kind: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        self._begun = True
        raw = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        raw += [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send(
            {"type": "http.response.start", "status": http_status, "headers": [*raw, *_COMMON]}
        )
        await send_parts(self._send, body, more=False)


class StreamReply:
    """The answer to a streaming call. Its HTTP status is 200 always; an error is in its end."""

    def __init__(self, send: Send, codec: str) -> None:
        self._send = send
        self._type = f"application/connect+{codec}".encode()
        self._begun = False
        self._whole = True
        """Whether no message is half sent."""

    async def begin(self) -> None:
        """Send the head, once."""
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", self._type), *_COMMON, (b"x-accel-buffering", b"no")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def message(self, data: bytes) -> None:
        """Send one message; return when the caller has taken most of it."""
        await self.begin()
        self._whole = False
        if len(data) <= _PART:
            await _body(self._send, envelope(data) + data, more=True)
        else:
            await _body(self._send, envelope(data), more=True)
            await send_parts(self._send, data, more=True)
            # uvicorn waits for room before a part, not behind it; nothing is sent for an empty one.
            await _body(self._send, b"", more=True)
        self._whole = True

    async def end(self) -> None:
        """End the stream without an error."""
        await self._finish({})

    async def fail(
        self,
        status: status_pb2.Status,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """End the stream with an error, whatever HTTP would call it."""
        del http_status, headers
        await self._finish({"error": error_json(status)})

    async def _finish(self, content: dict[str, Any]) -> None:
        if not self._whole:
            return  # the end of half a message would be read as the rest of it
        await self.begin()
        data = json_bytes(content)
        await _body(self._send, envelope(data, end=True) + data, more=False)


async def send_parts(send: Send, data: bytes, *, more: bool) -> None:
    """Send `data` in parts; with `more` the answer goes on behind it."""
    view = memoryview(data)
    last = max(len(data) - 1, 0) // _PART
    for i in range(last + 1):
        part = bytes(view[i * _PART : (i + 1) * _PART])
        await _body(send, part, more=more or i < last)


async def _body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
