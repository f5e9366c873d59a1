"""How the HTTP port bounds its connections, and what still gets in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from headstart_service.http import connections
from headstart_service.http.connections import Room, most_connections
from headstart_service.http.readiness import Readiness
from headstart_service.http.server import http_server
from tests.support.certificates import authority, signed
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


async def test_each_head_has_the_whole_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, *arguments: Any) -> asyncio.TimerHandle:
        delays.append(delay)
        return call_later(delay, *arguments)

    async with served(head_timeout=12345.0) as port, AsyncExitStack() as stack:
        monkeypatch.setattr(loop, "call_later", noted)
        reader, writer = await connect(stack, port, PROBE)
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)
        assert delays.count(12345.0) == 2, "at its beginning, and behind its answer"
        writer.write(PROBE)
        await asyncio.wait_for(reader.readuntil(b"200 OK"), 5)
        assert delays.count(12345.0) == 3
        monkeypatch.undo()


def test_a_port_holds_512_connections_or_a_quarter_of_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Room(8).head_timeout == 10.0
    assert most_connections(2000) >= most_connections()
    for share, most in ((10_000, 512), (256, 256)):
        monkeypatch.setattr(connections, "share_of_files", lambda part, share=share: share)
        assert most_connections() == most


async def test_a_full_port_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Connection:
        def __init__(self, since: float, *, idle: bool) -> None:
            self.since, self.idle = since, idle
            self.transport = self
            self.ended = False

        def abort(self) -> None:
            self.ended = True

    room = Room(3)
    told = []
    for at in (0.0, 59.0, 60.0, 119.0, 121.0):
        busy, old, idle = (
            Connection(-9.0, idle=False),
            Connection(-5.0, idle=True),
            Connection(-1.0, idle=True),
        )
        new = Connection(at, idle=True)
        connections_open = {busy, old, idle, new}
        room.enter(new, connections_open)  # type: ignore[arg-type]
        assert (busy.ended, old.ended, idle.ended, new.ended) == (False, True, False, False)
        assert connections_open == {busy, idle, new}
        room.enter(new, connections_open)  # type: ignore[arg-type]
        assert connections_open == {busy, idle, new}, "there is room"
        told.append(len(caplog.messages))
    assert told == [1, 1, 2, 2, 3]


async def test_a_peer_that_takes_nothing_of_its_answer_is_ended() -> None:
    gone = asyncio.Event()

    async def endless(_: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                gone.set()

        return StreamingResponse(parts())

    room = Room(8, stall=0.1)
    routes = [Route("/endless", endless)]
    async with http_server("127.0.0.1", 0, lambda: True, routes, room=room) as port:
        async with AsyncExitStack() as stack:
            await connect(stack, port, b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
            await asyncio.wait_for(gone.wait(), 5)


@pytest.mark.promise(
    "Connections without a handshake keep no caller out", "counted from their first byte"
)
async def test_connections_that_shake_no_hands_keep_no_probe_out(tmp_path: Path) -> None:
    root = authority(tmp_path, "ours")
    pair = signed(root, tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    trust = ssl.create_default_context(cafile=root.cert)
    room = Room(8)
    ready = Readiness(ready=True)
    async with (
        http_server("127.0.0.1", 0, lambda: ready, room=room, tls=lambda: context) as port,
        AsyncExitStack() as stack,
    ):
        flood = [await connect(stack, port, b"\x16" if i % 2 else b"") for i in range(30)]
        wrong = await connect(stack, port, PROBE)
        assert await ended(wrong)
        for _ in range(2):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=trust)
            stack.callback(writer.close)
            writer.write(PROBE)
            assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)
        for first in flood[:22]:
            assert await ended(first)
