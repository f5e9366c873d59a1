"""The real command in processes of its own: servers and workers that tests start and kill."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headstart.v1 import precompute_pb2_grpc as pb_grpc
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SERVICE = "headstart.v1.PrecomputeService"


class Process:
    """One `headstart` command; its output is kept for assertions and for failed tests."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.output = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output += line.decode()

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = 30.0) -> int:
        async with asyncio.timeout(within):
            code = await self.process.wait()
            await self._reader
        return code

    async def says(self, pattern: str, within: float = 60.0) -> re.Match[str]:
        """The first match of `pattern` in the output."""

        def match() -> re.Match[str] | None:
            found = re.search(pattern, self.output)
            assert found or self.process.returncode is None, f"{self.name} ended:\n{self.output}"
            return found

        try:
            found = await wait_until(match, within)
        except AssertionError:
            print(f"{self.name} said:\n{self.output}")
            raise
        assert found is not None
        return found


@asynccontextmanager
async def headstart(*arguments: str, **environment: str) -> AsyncIterator[Process]:
    """Run a command while the context is open; then end it, by force if it does not want to."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headstart_service", *arguments),
        env=clean_environment() | environment,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Process(arguments[0], process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await running.ended(20)
            except TimeoutError:
                process.kill()
                await running.ended()
        print(f"--- {running.name} {running.pid} said:\n{running.output}")


def clean_environment() -> dict[str, str]:
    """This environment without anything that changes what a server does."""
    foreign = ("HEADSTART_", "ANTHROPIC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


class Server(Process):
    """What tests know of a `serve` process."""


@asynccontextmanager
async def api(redis_url: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """An API process without a worker; gives it and its address once it serves."""
    async with serving("--no-worker", HEADSTART_REDIS_URL=redis_url, **environment) as served:
        yield served


@asynccontextmanager
async def serving(*flags: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """A `serve` process on free ports; gives it and its address once it serves."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    async with headstart("serve", *flags, **(ports | environment)) as process:
        found = await process.says(r"gRPC on (\S+), HTTP on (\S+)")
        await process.says(r"Headstart serves on")
        yield process, found[1].rstrip(",")


@asynccontextmanager
async def worker(redis_url: str, **environment: str) -> AsyncIterator[Process]:
    """A worker process that takes jobs."""
    settings = {"HEADSTART_REDIS_URL": redis_url, "HEADSTART_HTTP_PORT": "0"}
    async with headstart("worker", **(settings | environment)) as process:
        await process.says("headstart worker ready")
        yield process


@asynccontextmanager
async def stub(address: str) -> AsyncIterator[pb_grpc.PrecomputeServiceAsyncStub]:
    """The generated stub on a channel of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield pb_grpc.PrecomputeServiceStub(channel)  # type: ignore[misc]


async def health(address: str, service: str = SERVICE) -> str:
    """What gRPC health says of a service."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=5
        )
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings by field name as environment variables."""
    return {f"HEADSTART_{name.upper()}": str(value) for name, value in settings.items()}
