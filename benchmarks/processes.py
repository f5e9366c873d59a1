"""Servers in processes of their own: started, waited for, looked into, stopped."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from headstart_service.store.embedded import dying_with_parent

from .harness import Bench

ROOT = Path(__file__).parents[1]
_IDLE_SHARE = 0.1
"""Of a core: a process that uses less has nothing to do but its upkeep."""
_IDLE_WINDOW = 0.3
_numbers = count()


class Process:
    """A running command; its output goes to a file, so that nobody has to read it."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    async def says(self, pattern: str, within: float = 60.0) -> str:
        """The first group of the first match of `pattern` in its output."""
        deadline = time.monotonic() + within
        while (found := re.search(pattern, self.output)) is None:
            if self._process.returncode is not None:
                raise RuntimeError(f"ended with {self._process.returncode}:\n{self.output}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"did not say {pattern!r} in {within} s:\n{self.output}")
            await asyncio.sleep(0.02)
        return found[1] if found.groups() else found[0]

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _wanted_seconds(self) -> float:
        """Processor time that it has used or waited for: on a busy machine it may get none."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(sum(map(int, thread.read_text().split()[:2])) for thread in threads) / 1e9

    def used_seconds(self) -> float:
        """Processor time that it has used, all of its threads together."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def resident_mb(self) -> float:
        """Memory that it holds, in units of 10^6 bytes."""
        return resident_mb(self.pid)

    def libraries(self) -> set[str]:
        """The paths of all files that it has mapped."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        return {line.split(maxsplit=5)[5] for line in lines if line.count("/")}

    async def idle(self, within: float = 60.0) -> None:
        """Return once it has next to nothing to do: what it was sent has arrived."""
        deadline = time.monotonic() + within
        wanted = self._wanted_seconds()
        while time.monotonic() < deadline:
            await asyncio.sleep(_IDLE_WINDOW)
            before, wanted = wanted, self._wanted_seconds()
            if wanted - before <= _IDLE_SHARE * _IDLE_WINDOW:
                return
        raise TimeoutError(f"process {self.pid} is still busy after {within} s")


def resident_mb(pid: int) -> float:
    """Memory that a process holds, in units of 10^6 bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


@asynccontextmanager
async def running(
    command: list[str], directory: Path, environment: Mapping[str, str]
) -> AsyncIterator[Process]:
    """Run a command while the context is open."""
    output = directory / f"{next(_numbers)}.log"
    with output.open("wb") as file:
        started = await asyncio.create_subprocess_exec(
            # A benchmark that is killed must not leave servers behind that disturb the next.
            *dying_with_parent(command),
            cwd=ROOT,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    process = Process(started, output)
    try:
        yield process
    finally:
        await process.stop()


def clean_environment() -> dict[str, str]:
    """This environment without anything that changes what a server does."""
    foreign = ("HEADSTART_", "ANTHROPIC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


async def start_api(
    bench: Bench, redis_url: str, *flags: str, **settings: str
) -> tuple[Process, str]:
    """`headstart serve --no-worker` (or with the flags given), and its address once it serves."""
    process = await _headstart(bench, redis_url, ["serve", *(flags or ["--no-worker"])], settings)
    return process, await process.says(r"Headstart serves on (\S+)\. Try", within=120)


async def start_worker(bench: Bench, redis_url: str, **settings: str) -> Process:
    """`headstart worker`, once it takes jobs."""
    process = await _headstart(bench, redis_url, ["worker"], settings)
    await process.says(r"headstart worker ready", within=120)
    return process


async def _headstart(
    bench: Bench, redis_url: str, arguments: list[str], settings: Mapping[str, str]
) -> Process:
    own = {"REDIS_URL": redis_url, "GRPC_PORT": "0", "HTTP_PORT": "0"}
    named = own | dict(settings)
    variables = {_variable(name): value for name, value in named.items()}
    command = [sys.executable, "-m", "headstart_service", *arguments]
    context = running(command, bench.work, clean_environment() | variables)
    return await bench.stack.enter_async_context(context)


def _variable(setting: str) -> str:
    """The environment's name of a setting; the Anthropic SDK's own keep theirs."""
    return setting if setting.startswith("ANTHROPIC_") else f"HEADSTART_{setting}"


async def start_server(
    bench: Bench, module: str, *arguments: str, python: str = sys.executable
) -> tuple[Process, str]:
    """A server of `benchmarks.servers`, and its address."""
    command = [python, "-m", f"benchmarks.servers.{module}", *arguments]
    process = await bench.stack.enter_async_context(
        running(command, bench.work, clean_environment())
    )
    port = await process.says(r"listening on (\d+)")
    return process, f"127.0.0.1:{port}"
