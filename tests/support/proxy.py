"""A TCP proxy that tests cut, stall or put TLS in front of: before a Redis, or before an API."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 65536
Pass = Callable[[bytes], int]


@dataclass(eq=False)
class _Link:
    """One client's connection and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    subscribed: bool = False
    doomed: bool = False
    """Whether it is cut in the middle of the next reply."""
    lost: bool = False
    """Whether all that it carries is swallowed, while both ends think that it is there."""
    carried: int = 0
    """How many pieces its client has sent."""

    def cut(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()


@dataclass(eq=False)
class Proxy:
    """Passes bytes on, both ways, until told otherwise."""

    port: int
    links: set[_Link] = field(default_factory=set)
    delay: float = 0.0
    """Seconds for which each piece of a reply is held back."""
    silent: bool = False
    """Whether what the server publishes to subscribers is swallowed: a half-dead connection."""
    doomed: bytes | None = None
    """What a request has in it in the middle of which, or of its reply, its link is cut."""
    in_reply: bool = False
    unanswered: bytes | None = None
    """What a request has in it after which its link is lost."""
    cuts: int = 0

    def cut(self) -> int:
        """Cut every connection now; gives their number."""
        cut = len(self.links)
        for link in list(self.links):
            link.cut()
        self.cuts += cut
        return cut

    def cut_next(self, of: bytes, *, in_reply: bool) -> None:
        """Cut the connection of the next such request: half of it has gone, or half its reply."""
        self.doomed, self.in_reply = of, in_reply

    def lose(self) -> int:
        """Lose every connection without a word, as a NAT that has forgotten it; gives their number."""
        for link in self.links:
            link.lost = True
        return len(self.links)

    def lose_after(self, of: bytes) -> None:
        """Lose the connection of the next such request, once the request has been passed on."""
        self.unanswered = of

    async def pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                link.carried += not reply
                if link.lost or (reply and link.subscribed and self.silent):
                    continue
                if not reply and self.unanswered and self.unanswered in data:
                    self.unanswered, link.lost = None, True
                if not reply and b"SUBSCRIBE" in data:
                    link.subscribed = True
                await asyncio.sleep(self.delay * reply)
                if not reply and self.doomed and self.doomed in data:
                    self.doomed, link.doomed = None, True
                if link.doomed and reply is self.in_reply:
                    self.cuts += 1
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                    link.cut()
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self.links.discard(link)
            for end in (link.client, link.server):
                end.close()


@asynccontextmanager
async def proxy(target: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy on a free loopback port before the loopback port `target`."""
    made = Proxy(0)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        link = _Link(writer, up_writer)
        made.links.add(link)
        for source, sink, reply in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(made.pump(link, source, sink, reply=reply))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
        for task in list(tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
