"""A redis-py client of one server that keeps its connections and packs commands in C.

redis-py's own way to run a command takes a connection from a pool, and packs its arguments in
Python. It sends in a task of its own where the connection has a time limit. Without these, a
command takes half of the CPU time. What redis-py knows of connecting, retrying and parsing stays
in use, and so do its subscriptions.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import Connection


class ServerClient(Redis):
    """Runs each command on a connection that no other command uses meanwhile."""

    def __init__(self, *, limit: float | None = None, **options: Any) -> None:
        """Give up on a command after `limit` seconds, with all that it waits for."""
        super().__init__(**options)
        self._limit = limit
        self._places = asyncio.Semaphore(self.connection_pool.max_connections)
        self._idle: list[Connection] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the reply to a command. Raises what redis-py raises, and TimeoutError."""
        async with asyncio.timeout(self._limit), self._places:
            pool = self.connection_pool
            connection = self._idle.pop() if self._idle else pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await pool.ensure_connection(connection)
                # redis-py names a command with its subcommand, such as "SCRIPT LOAD".
                packed = pack_command((*args[0].split(), *args[1:]))

                async def exchange() -> Any:
                    await connection.send_packed_command(packed)
                    return await self.parse_response(connection, args[0], **options)

                return await connection.retry.call_with_retry(
                    exchange, lambda _: connection.disconnect()
                )
            finally:
                self._idle.append(connection)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  # redis-py's
        """Close every connection."""
        while self._idle:
            await self._idle.pop().disconnect()
        await super().aclose(close_connection_pool)
