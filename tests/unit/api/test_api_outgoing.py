"""Large answers on their way: how many bytes at once, in which order, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from headstart_service.api.results.outgoing import SMALL, Outgoing, Parts
from headstart_service.api.status import guarded_stream
from headstart_service.domain.errors import CapacityExhausted
from tests.support.waiting import wait_until

DATA = bytes(2 * SMALL)
MEGABYTE = 1 << 20


class Call:
    """A call that ends when a test says so."""

    def __init__(self, connection: str = "a", left: float | None = None) -> None:
        self._connection = connection
        self._left = left
        self.callbacks: list[Callable[[Any], None]] = []

    def peer(self) -> str:
        return self._connection

    def time_remaining(self) -> float | None:
        return self._left

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)


async def test_an_answer_waits_until_others_have_gone_and_in_the_order_of_calls() -> None:
    outgoing = Outgoing(2 * len(DATA))
    first: Any = Call()
    assert await outgoing.admit(DATA, first) == DATA
    second: Any = Call("b")
    await outgoing.admit(DATA, second)
    others: list[Any] = [Call(f"c{number}") for number in range(3)]
    order: list[int] = []

    async def admit(number: int) -> None:
        await outgoing.admit(DATA, others[number])
        order.append(number)

    waiting = [asyncio.create_task(admit(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    first.end()
    await wait_until(lambda: order == [1])
    second.end()
    await wait_until(lambda: order == [1, 2])
    assert outgoing.held == 2 * len(DATA)
    for call in others:
        call.end()
    assert outgoing.held == 0


async def test_an_answer_that_gets_no_turn_is_refused_within_its_callers_time() -> None:
    outgoing = Outgoing(len(DATA), patience=600)
    held: Any = Call()
    await outgoing.admit(DATA, held)
    short: Any = Call(left=0.1)
    with pytest.raises(CapacityExhausted):
        await outgoing.admit(DATA, short)
    small: Any = Call()
    assert await outgoing.admit(b"small", small) == b"small"
    held.end()
    assert outgoing.held == 0
    assert await outgoing.admit(DATA, short) == DATA


async def test_an_answer_that_gives_up_lets_in_those_that_waited_behind_it() -> None:
    outgoing = Outgoing(3 * len(DATA), patience=600)
    for name in ("a", "b"):
        held: Any = Call(name)
        await outgoing.admit(DATA, held)
    large: Any = Call("large")
    first = asyncio.create_task(outgoing.admit(2 * DATA, large))
    await asyncio.sleep(0)
    small: Any = Call("small")
    behind = asyncio.create_task(outgoing.admit(DATA, small))
    await asyncio.sleep(0)
    assert not behind.done()
    first.cancel()
    await wait_until(behind.done)
    assert await behind == DATA


async def test_one_connection_has_half_of_the_room_and_keeps_nobody_waiting() -> None:
    outgoing = Outgoing(4 * len(DATA))
    unread: list[Any] = [Call("unread") for _ in range(3)]
    for call in unread[:2]:
        await outgoing.admit(DATA, call)
    third = asyncio.create_task(outgoing.admit(DATA, unread[2]))
    await asyncio.sleep(0)
    others: list[Any] = [Call("other"), Call("another")]
    for call in others:
        await outgoing.admit(DATA, call)
    others[0].end()
    await asyncio.sleep(0)
    assert not third.done()
    unread[0].end()
    assert await third == DATA


async def test_one_answer_larger_than_all_room_goes_alone() -> None:
    outgoing = Outgoing(len(DATA) // 2)
    call: Any = Call()
    assert await outgoing.admit(DATA, call) == DATA
    call.end()
    assert outgoing.held == 0


@asynccontextmanager
async def served(outgoing: Outgoing) -> AsyncIterator[str]:
    """A server with one method, whose stream is two messages of four megabytes."""

    async def stream(_: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(2):
            async with outgoing.sending(bytes(4 * MEGABYTE), context):
                yield bytes(4 * MEGABYTE)

    class Free:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    handler = grpc.unary_stream_rpc_method_handler(guarded_stream(stream, Free()))  # type: ignore[arg-type]
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


OPTIONS = [
    ("grpc.max_receive_message_length", 8 * MEGABYTE),
    ("grpc.use_local_subchannel_pool", 1),
]


async def test_a_stream_that_is_not_read_holds_one_message_until_its_call_ends() -> None:
    outgoing = Outgoing(8 * MEGABYTE, patience=30)
    async with (
        served(outgoing) as address,
        grpc.aio.insecure_channel(address, options=OPTIONS) as one,
        grpc.aio.insecure_channel(address, options=OPTIONS) as other,
    ):
        unread = one.unary_stream("/s/m")(b"", timeout=60)
        await wait_until(lambda: outgoing.held == 4 * MEGABYTE)
        read = other.unary_stream("/s/m")(b"", timeout=30)
        assert [len(message) async for message in read] == [4 * MEGABYTE] * 2
        assert outgoing.held == 4 * MEGABYTE
        unread.cancel()
        await wait_until(lambda: outgoing.held == 0)


async def test_the_parts_of_an_answer_are_joined_when_there_is_room() -> None:
    outgoing = Outgoing(len(DATA), patience=600)
    held: Any = Call()
    await outgoing.admit(DATA, held)
    call: Any = Call("b")
    joining = asyncio.create_task(outgoing.admit(Parts([b"a", DATA[:-1]]), call))
    await asyncio.sleep(0)
    assert not joining.done()
    held.end()
    assert await joining == b"a" + DATA[:-1]
    assert outgoing.held == len(DATA)
    small: Any = Call()
    assert await outgoing.admit(Parts([b"a", b"b"]), small) == b"ab"
