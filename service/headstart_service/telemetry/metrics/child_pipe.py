"""Pass the metrics of a worker without a port to its `serve`, over a pair of sockets.

The parent sends a byte, the child answers with its text behind four bytes of length. No other
process can reach it, and it ends with either of the two (docs/decisions/0024).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

_ASK = b"?"
_LENGTH = struct.Struct(">I")
_MOST = 16 * 1024 * 1024


class ChildMetrics:
    """The parent's end; one child at a time."""

    def __init__(self, patience: float = 1.0) -> None:
        """Wait `patience` seconds for an answer: less than the caller of `text` may wait."""
        self.patience = patience
        self._writer: asyncio.StreamWriter | None = None
        self._text = ""
        self._answered = asyncio.Event()
        self._asking = False

    @asynccontextmanager
    async def life(self) -> AsyncIterator[int]:
        """Listen to a child that is given this file descriptor, until the context is left."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            self._writer, self._asking = writer, False
            listening = asyncio.create_task(self._listen(reader), name="figures of the worker")
            try:
                yield theirs.fileno()
            finally:
                self._writer, self._text = None, ""
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                writer.close()

    async def text(self) -> str:
        """Return the child's metrics; empty without a child, or when it does not answer in time."""
        if self._writer is None:
            return ""
        self._answered.clear()
        if not self._asking:  # a question without an answer yet is not repeated
            self._asking = True
            self._writer.write(_ASK)
        try:
            async with asyncio.timeout(self.patience):
                await self._answered.wait()
        except TimeoutError:
            return ""
        return self._text

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                if size > _MOST:
                    return
                self._text = (await reader.readexactly(size)).decode()
            except (EOFError, OSError):
                return
            self._asking = False
            self._answered.set()


async def answer_parent(descriptor: int, text: Callable[[], Awaitable[str]]) -> None:
    """The child's end: answer on this file descriptor until the parent has gone."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    try:
        while await reader.read(len(_ASK)):
            try:
                content = (await text()).encode()
            except Exception:
                log.exception("no figures for the parent")  # the worker goes on without metrics
                content = b""
            writer.write(_LENGTH.pack(len(content)) + content)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()
