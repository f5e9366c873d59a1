"""How the HTTP port bounds its connections, and what still gets in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from headstart_service.web.connections import Room
from headstart_service.web.server import http_server
from tests.support.waiting import wait_until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PROBE = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"


@asynccontextmanager
async def served(limit: int = 8, head_timeout: float = 30.0) -> AsyncIterator[int]:
    """A port with a page at /slow whose answer does not end."""

    async def slow(_: Request) -> StreamingResponse:
        async def forever() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.Event().wait()

        return StreamingResponse(forever())

    routes = [Route("/slow", slow)]
    room = Room(limit, head_timeout)
    async with http_server("127.0.0.1", 0, lambda: True, routes, room=room) as port:
        yield port


async def connect(stack: AsyncExitStack, port: int, sent: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    writer.write(sent)
    return reader, writer


async def ended(connection: Connection) -> bool:
    """Whether the server ends this connection, after whatever it sends."""
    try:
        async with asyncio.timeout(5):
            while await connection[0].read(1000):
                pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


async def test_a_probe_is_answered_however_many_connections_send_half_a_request() -> None:
    async with served(limit=8) as port, AsyncExitStack() as stack:
        flood = [await connect(stack, port, b"GET /livez HT") for _ in range(30)]
        for _ in range(3):
            reader, _ = await connect(stack, port, PROBE)
            assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)
        for first in flood[:22]:
            assert await ended(first)


async def test_a_connection_whose_request_is_answered_goes_after_the_idle_ones() -> None:
    async with served(limit=8) as port, AsyncExitStack() as stack:
        reader, _ = await connect(stack, port, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"begun")
        idle = [await connect(stack, port) for _ in range(20)]
        assert await ended(idle[0])
        assert not reader.at_eof()


async def test_connections_that_take_no_answer_keep_no_probe_out() -> None:
    async with served(limit=4) as port, AsyncExitStack() as stack:
        busy = [
            await connect(stack, port, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(4)
        ]
        for reader, _ in busy:
            await reader.readuntil(b"begun")
        reader, _ = await connect(stack, port, PROBE)
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)
        assert await ended(busy[0])


async def test_half_a_head_ends_in_time_even_if_it_grows() -> None:
    async with served(head_timeout=0.2) as port, AsyncExitStack() as stack:
        silent = await connect(stack, port)
        dripping = await connect(stack, port, b"GET /livez HTTP/1.1\r\n")
        after_one = await connect(stack, port, PROBE + b"GET ")

        def drip() -> bool:
            dripping[1].write(b"A: b\r\n")
            return dripping[0].at_eof() or dripping[1].is_closing()

        await wait_until(drip)
        assert await ended(silent)
        assert await ended(after_one)


async def test_a_request_that_has_begun_has_its_time() -> None:
    async with served(head_timeout=0.1) as port, AsyncExitStack() as stack:
        silent = await connect(stack, port)
        slow, _ = await connect(stack, port, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await slow.readuntil(b"begun")
        other = await connect(stack, port)
        assert await ended(silent)
        assert await ended(other)
        assert not slow.at_eof()
