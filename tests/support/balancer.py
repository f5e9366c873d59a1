"""A TCP balancer that sends each new connection to the next of its targets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 65536


@dataclass(eq=False)
class Balancer:
    """Passes bytes on, both ways."""

    targets: list[int]
    """Ports of this machine; one that is added gets its share of the connections from then on."""
    port: int = 0
    made: list[int] = field(default_factory=list)
    """The target of each connection, in order."""


@asynccontextmanager
async def balancer(*targets: int) -> AsyncIterator[Balancer]:
    """A balancer on a free loopback port."""
    own = Balancer(list(targets))
    tasks: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(_CHUNK):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = own.targets[len(own.made) % len(own.targets)]
        own.made.append(target)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(pump(source, sink))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    own.port = server.sockets[0].getsockname()[1]
    try:
        yield own
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
