"""A client of one server: connections that it keeps, replaces and closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from headstart_service.store.connect import API, open_client
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


@asynccontextmanager
async def opened(url: str, **patience: Any) -> AsyncIterator[Any]:
    """A client that is closed with the context."""
    client = open_client(url, replace(API, **patience))
    try:
        yield client
    finally:
        await client.aclose()


async def connections(watcher: Any) -> int:
    """How many the server has beside the watcher's."""
    return len(await watcher.client_list()) - 1


async def test_commands_share_as_few_connections_as_are_under_way_at_once(valkey: Valkey) -> None:
    async with opened(valkey.url) as watcher, opened(valkey.url, connections=2) as client:
        for number in range(5):
            await client.set("key", number)
        assert await connections(watcher) == 1
        values = await asyncio.gather(*(client.get("key") for _ in range(20)))
        assert values == [b"4"] * 20
        assert await connections(watcher) == 2


async def test_a_closed_client_has_no_connection_left(valkey: Valkey) -> None:
    async with opened(valkey.url) as watcher:
        async with opened(valkey.url) as client:
            await asyncio.gather(client.ping(), client.ping())

        async def gone() -> bool:
            return await connections(watcher) == 0

        await wait_until(gone)


async def test_subcommands_numbers_and_bytes_arrive_as_they_are(valkey: Valkey) -> None:
    async with opened(valkey.url) as client:
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        await client.hset("hash", mapping={"text": "ä b", "bytes": b"\r\n\xff", "number": 7})
        found = await client.hgetall("hash")
        assert found == {b"text": "ä b".encode(), b"bytes": b"\r\n\xff", b"number": b"7"}


async def test_an_error_is_its_own_commands_alone(valkey: Valkey) -> None:
    async with opened(valkey.url) as client:
        await client.set("key", "text")
        with pytest.raises(ResponseError):
            await client.incr("key")
        assert await client.get("key") == b"text"


async def test_a_connection_that_the_server_has_closed_is_replaced_unseen(valkey: Valkey) -> None:
    async with opened(valkey.url) as watcher, opened(valkey.url, retries=0) as client:
        await client.set("key", "value")
        await watcher.client_kill_filter(_type="normal", skipme=True)
        assert await client.get("key") == b"value"


async def test_a_command_that_is_given_up_leaves_its_reply_to_no_other(valkey: Valkey) -> None:
    async with opened(valkey.url) as client:
        await client.set("key", "value")
        waiting = asyncio.ensure_future(client.blpop("list", timeout=5))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await client.rpush("list", "late")
        assert await client.get("key") == b"value"


@pytest.mark.parametrize("at", ["connecting", "answering"])
async def test_a_server_that_does_not_answer_is_given_up_and_left(at: str) -> None:
    left = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if at == "answering":
            writer.write(b"+OK\r\n" * 3)  # to what redis-py sends when it connects
        while await reader.read(1024):
            pass
        writer.close()
        await writer.wait_closed()
        left.set()

    async with asyncio.timeout(5), await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}/1", connect=0.1, answer=0.1) as client:
            with pytest.raises((TimeoutError, RedisConnectionError)):
                await client.get("key")
        await left.wait()
