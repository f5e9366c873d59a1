"""Bytes on the two ports, framed and not: whoever sends them may be dropped, nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest

from tests.fuzz import budget, frames
from tests.fuzz.victim import Victim

_AT_ONCE = 40
_TOGETHER = 400
_HEARD = 0.02
"""Seconds for which an answer is listened to: the victim's health is what counts."""
Write = Callable[[random.Random], bytes]


async def _send(port: int, data: bytes, *, half_close: bool, abort: bool) -> None:
    """Send this, listen for a moment, and leave in some way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError):
        writer.write(data)
        if half_close:
            writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARD):
                await writer.drain()
                while await reader.read(65536):
                    pass
        if abort:
            writer.transport.abort()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _send_all(port: int, write: Write, number: int, dice: random.Random) -> None:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes, how: int) -> None:
        async with turn:
            await _send(port, data, half_close=how == 0, abort=how == 1)

    await asyncio.gather(*(one(write(dice), dice.randrange(3)) for _ in range(number)))


@pytest.mark.promise("Invalid bytes harm no other call", "guard in `api/grpc_server`")
@pytest.mark.parametrize(("target", "write"), [("grpc", frames.http2), ("http", frames.http1)])
def test_any_bytes_on_a_port_harm_nobody_else(victim: Victim, target: str, write: Write):
    dice = budget.dice(target)
    port = victim.port if target == "grpc" else victim.http_port
    left = budget.cases(400, 6_000)
    while left > 0:
        number = min(left, _TOGETHER)
        victim.run(_send_all(port, write, number, dice))
        left -= number
        budget.count(f"{target} connections", number)
        assert victim.call_all([("GetStats", b"")]) == [grpc.StatusCode.OK]
    victim.is_well()


def test_the_http_port_answers_after_it(victim: Victim):
    async def status(path: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", victim.http_port)
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n")[0]

    assert victim.run(status(b"/livez")) == b"HTTP/1.1 200 OK"
    assert victim.run(status(b"/readyz")) == b"HTTP/1.1 200 OK"


def test_connections_that_say_nothing_keep_nobody_out(victim: Victim):
    async def crowd() -> None:
        silent = [await asyncio.open_connection("127.0.0.1", victim.port) for _ in range(200)]
        assert (await victim.call("GetStats", b""))[0] is grpc.StatusCode.OK
        for _, writer in silent:
            writer.close()

    victim.run(crowd())
    budget.count("grpc connections", 200)
