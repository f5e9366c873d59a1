"""What makes a Redis refuse its clients for a while, until the context ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.support.waiting import wait_until


@asynccontextmanager
async def busy(admin: Redis) -> AsyncIterator[None]:
    """Somebody's script runs for ever, and the server says so."""
    await admin.config_set("busy-reply-threshold", 10)
    running = asyncio.create_task(_endless(admin))
    await wait_until(lambda: _is_busy(admin))
    try:
        yield
    finally:
        await admin.script_kill()
        await running


async def _endless(admin: Redis) -> None:
    with suppress(ResponseError):
        await admin.eval("while true do end", 0)


async def _is_busy(admin: Redis) -> bool:
    try:
        await admin.ping()
    except ResponseError as error:
        return str(error).startswith("BUSY")
    return False


@asynccontextmanager
async def another_password(admin: Redis) -> AsyncIterator[None]:
    """The user's password is another, and its connections are cut."""
    await admin.execute_command("ACL SETUSER headstart resetpass >another")
    await admin.execute_command("CLIENT KILL USER headstart")
    try:
        yield
    finally:
        await admin.execute_command("ACL SETUSER headstart resetpass >s3cret")
