"""Reads request bodies, bounded: how large one is, how long it takes, how many bytes all hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from google.rpc import code_pb2
from starlette.types import Receive

from ...domain.errors import CapacityExhausted
from .errors import Refused

MAX_REQUEST: Final = 4 * 1024 * 1024
"""Bytes of a request, as over gRPC."""
_PREFIX: Final = 5
"""Bytes before an enveloped message."""
_WITHIN: Final = 10.0
"""Seconds in which a body must come: until then it holds a connection and memory."""
_HELD: Final = 64 * 1024 * 1024
"""Bytes of all bodies that a process holds at once."""
_AGAIN: Final = 1.0
_COMPRESSED, _END = 0x01, 0x02
_JSON_OBJECT: Final = ord("{")


class ClientGone(Exception):
    """The caller has closed its connection."""


class Hold:
    """The bytes that one call has in memory."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def add(self, size: int) -> None:
        """Count more of them. Raises CapacityExhausted."""
        self.size += size
        self._bodies.held += size
        if self._bodies.held > self._bodies.limit:
            raise CapacityExhausted(
                f"{self._bodies.limit} bytes of requests are being read", _AGAIN
            )


class Bodies:
    """The request bodies of a process."""

    def __init__(self, limit: int = _HELD, within: float = _WITHIN) -> None:
        """Hold at most `limit` bytes; take each body within so many seconds."""
        self.limit = limit
        self.held = 0
        self._within = within

    @contextmanager
    def holding(self) -> Iterator[Hold]:
        """Count what one call holds while the context is open."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.held -= hold.size

    async def read(self, receive: Receive, length: str | None, hold: Hold) -> bytes:
        """Return a whole body. Raises Refused, CapacityExhausted and ClientGone.

        `length` is its Content-Length: a body that is too large is refused before it is read.
        """
        if (
            length is not None and int(length) > MAX_REQUEST + _PREFIX
        ):  # h11 lets digits through alone
            raise _too_large()
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._within):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    part: bytes = message.get("body", b"")
                    hold.add(len(part))
                    if hold.size > MAX_REQUEST + _PREFIX:
                        raise _too_large()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Refused(
                code_pb2.DEADLINE_EXCEEDED,
                f"the body must come within {self._within:g} seconds",
                http_status=408,
            ) from error


def whole(body: bytes) -> bytes:
    """Return the message of a unary call. Raises Refused if it is too large."""
    if len(body) > MAX_REQUEST:
        raise _too_large()
    return body


def opened(body: bytes) -> bytes:
    """Return the one message in the envelopes of a streaming call. Raises Refused."""
    if len(body) < _PREFIX:
        raise _malformed(f"must be one envelope of 5 bytes and a message, has {len(body)} bytes")
    flags, size = body[0], int.from_bytes(body[1:_PREFIX])
    if flags == _JSON_OBJECT:
        rule = "must be an envelope, not JSON alone: 1 byte of flags, 4 of length, the message"
        raise _malformed(rule)
    if flags & _COMPRESSED:
        raise Refused(
            code_pb2.INTERNAL, "body: its envelope is compressed, without Connect-Content-Encoding"
        )
    if flags:
        raise _malformed(f"its envelope must have the flags 0, has {flags}")
    if size > MAX_REQUEST:
        raise _too_large()
    message = body[_PREFIX:]
    if len(message) < size:
        raise _malformed(f"must have {size} bytes behind its envelope's head, has {len(message)}")
    if len(message) > size:
        raise _malformed("must be one envelope, has more behind it")
    return message


def envelope(data: bytes, *, end: bool = False) -> bytes:
    """Return the head of an enveloped message; `end` marks the last one of a stream."""
    return bytes((_END if end else 0,)) + len(data).to_bytes(4)


def _malformed(rule: str) -> Refused:
    return Refused(code_pb2.INVALID_ARGUMENT, f"body: {rule}")


def _too_large() -> Refused:
    return Refused(
        code_pb2.RESOURCE_EXHAUSTED, f"body: must be at most {MAX_REQUEST} bytes", http_status=413
    )
