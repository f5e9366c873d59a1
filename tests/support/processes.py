"""The real command in processes of its own: servers and workers that tests start and kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headstart.v1 import precompute_pb2_grpc as pb_grpc
from tests.support.waiting import PATIENT, wait_until

ROOT = Path(__file__).parents[2]
Service: TypeAlias = "pb_grpc.PrecomputeServiceAsyncStub"
SERVICE = "headstart.v1.PrecomputeService"
SHORT_DRAIN = {"HEADSTART_DRAIN": "0.5"}
"""A test that ends while a step runs waits no longer than this for the worker."""
POOLS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables for the threads of numpy and torch. The tests' own processes have one each."""
TAIL = 30
"""Lines of a process's output that a failing test shows."""


class Process:
    """A command whose output goes to a file, so that no test's event loop has to read it."""

    def __init__(
        self, command: list[str], environment: dict[str, str], directory: Path = ROOT
    ) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="headstart-test-", suffix=".log")
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )
        self.name = " ".join(command[1:])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return Path(self._file.name).read_text(errors="replace")

    @property
    def tail(self) -> str:
        """The end of its output, for messages."""
        lines = self.output.splitlines()
        cut = [f"({len(lines) - TAIL} lines before)"] if len(lines) > TAIL else []
        return "\n".join([*cut, *lines[-TAIL:]])

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def resident(self) -> int:
        """The bytes of memory that it holds now."""
        [kilobytes] = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(kilobytes) * 1024

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait(30)

    async def ended(self, within: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        await wait_until(lambda: self._process.poll() is not None, within)
        assert self._process.returncode is not None
        return self._process.returncode

    async def says(self, pattern: str, within: float = 60.0) -> re.Match[str]:
        """The first match of `pattern` in its output."""

        def match() -> re.Match[str] | None:
            found = re.search(pattern, self.output)
            assert found or self._process.poll() is None, f"{self.name} ended:\n{self.tail}"
            return found

        found = await wait_until(match, within)
        assert found is not None
        return found

    def stop(self) -> None:
        """End it, by force if it must be, and show the end of its output if a test failed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        print(f"--- {self.name} (process {self.pid}) said:\n{self.tail}")
        self._file.close()


def run_headstart(*arguments: str, **environment: str) -> Process:
    """Start a `headstart` command; whoever does stops it."""
    command = [sys.executable, "-m", "headstart_service", *arguments]
    return Process(command, clean_environment() | environment)


def clean_environment() -> dict[str, str]:
    """This environment without anything that changes what a server does."""
    foreign = ("HEADSTART_", "ANTHROPIC_", "OPENAI_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    foreign += POOLS
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


@asynccontextmanager
async def headstart(*arguments: str, **environment: str) -> AsyncIterator[Process]:
    """Run a command while the context is open."""
    process = run_headstart(*arguments, **environment)
    try:
        yield process
    finally:
        process.stop()


@asynccontextmanager
async def serving(*flags: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """A `serve` process on free ports; gives it and its gRPC address once it serves."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    async with headstart("serve", *flags, **(SHORT_DRAIN | ports | environment)) as process:
        yield process, await address_of(process)


async def address_of(process: Process) -> str:
    """The gRPC address of a `serve` process, once it serves."""
    found = await process.says(r"gRPC on (\S+), HTTP on")
    await process.says(r'Headstart serves on|"message":"serving"')
    return found[1]


@asynccontextmanager
async def api(redis_url: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """An API process without a worker; gives it and its address once it serves."""
    async with serving("--no-worker", HEADSTART_REDIS_URL=redis_url, **environment) as served:
        yield served


@asynccontextmanager
async def worker(redis_url: str, **environment: str) -> AsyncIterator[Process]:
    """A worker process that takes jobs."""
    settings = {"HEADSTART_REDIS_URL": redis_url, "HEADSTART_HTTP_PORT": "0"}
    async with headstart("worker", **(SHORT_DRAIN | settings | environment)) as process:
        await process.says("headstart worker ready|takes jobs")
        yield process


@asynccontextmanager
async def stub(address: str) -> AsyncIterator[Service]:
    """The generated stub on a channel of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield pb_grpc.PrecomputeServiceStub(channel)  # type: ignore[misc]


async def health(address: str, service: str = SERVICE) -> str:
    """What gRPC health says of a service."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=PATIENT
        )
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def children(pid: int) -> dict[int, bytes]:
    """Every descendant of a process, with its command; arguments end with a zero byte."""
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes()
            found |= children(child)
    return found


def alive(pid: int) -> bool:
    """Whether a process, of anybody, still runs."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
