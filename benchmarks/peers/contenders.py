"""Contenders at work: the worker, and the driver that measures, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import headstart
import headstart_service

from .. import processes
from ..environments import peer_python
from ..harness import Bench, Unavailable
from ..processes import Process, clean_environment, running, start_api
from . import work
from .pipelines import NAMES
from .roster import Peer

BARE_ANSWER = "bare.bin"
"""What the bare server answers: a file of the figure's."""
_PATIENCE = 300.0
_DATABASES = 16


class Driver:
    """Gives a contender's driver its orders."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, versions: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.versions = versions

    async def tell(self, order: str, **arguments: Any) -> Any:
        """Have an order carried out; see `driver.Driver`. Raises RuntimeError when it failed."""
        self._writer.write(json.dumps({"do": order, **arguments}).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            await self._writer.drain()
            said = json.loads(await self._reader.readline())
        if "error" in said:
            raise RuntimeError(f"{order}: {said['error']}")
        return said["value"]


@dataclass
class Contender:
    """One that is ready to be measured, until it fails."""

    peer: Peer
    driver: Driver
    database: int
    """The number of its database, which its connections are told by."""


class Field:
    """Those who compete in one figure; whoever cannot is named, and the others go on."""

    def __init__(self, bench: Bench, url: str, at_once: int, *, games: bool = False) -> None:
        self._bench = bench
        self._url = url
        self._at_once = at_once
        self._games = games
        self.contenders: list[Contender] = []

    async def enter(
        self, peers: Sequence[Peer], check: Callable[[Driver], Awaitable[None]]
    ) -> None:
        """Start them, and see that each has something right to show before it is measured."""
        pythons = {peer.name: await self._python(peer) for peer in peers}
        able = [(peer, python) for peer in peers if (python := pythons[peer.name])]
        first = len(self.contenders) + 1
        entered = await asyncio.gather(
            *(
                self._enter(peer, python, number, check)
                for number, (peer, python) in enumerate(able, first)
            )
        )
        self.contenders += [contender for contender in entered if contender]

    async def _python(self, peer: Peer) -> Path | None:
        if not peer.packages:
            return Path(sys.executable)
        try:
            return await peer_python(f"peer-{peer.environment}", peer.packages, borrow=True)
        except Unavailable as missing:
            self.gives_up(peer, missing)
            return None

    async def _enter(
        self, peer: Peer, python: Path, number: int, check: Callable[[Driver], Awaitable[None]]
    ) -> Contender | None:
        try:
            async with AsyncExitStack() as attempt:
                contender = await self._start(
                    replace(self._bench, stack=attempt), peer, python, number
                )
                await check(contender.driver)
                self._bench.stack.push_async_exit(attempt.pop_all())
        except Exception as error:  # noqa: BLE001  # named; the others are measured
            self.gives_up(peer, error)
            return None
        return contender

    def gives_up(self, peer: Peer, error: Exception) -> None:
        """Remember why one is missing."""
        reason = (
            str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
        )
        self._bench.missing.append(f"{peer.name}: {reason}")

    async def _start(self, bench: Bench, peer: Peer, python: Path, database: int) -> Contender:
        url = numbered(self._url, database)
        if bench.redis_url is not None:  # somebody else's: every database must be empty
            await replace(bench, redis_url=url).valkey()
        variables = {work.REDIS_URL: url, peer.url_variable: url, **peer.variables}
        target = ""
        if peer.worker:
            target = await start_worker(bench, peer, python, variables | self._for_games())
        elif peer.listens:
            target = await start_bare(bench)
        # In a process that has no worker, the client's is where the games are played.
        own = variables | self._for_games() if not peer.worker else variables
        driver = await start_driver(bench, peer.adapter, target, self._at_once, python, own)
        return Contender(peer, driver, number_of(url))

    def _for_games(self) -> dict[str, str]:
        return {work.GAMES: "1"} if self._games else {}


async def start_headstart(bench: Bench, url: str, at_once: int, **settings: str) -> Driver:
    """API and worker in processes of their own, and a driver for them.

    Not one `headstart serve` for both: its worker gives way to everything else on the machine,
    and the peers' workers do not.
    """
    settings |= {"PIPELINES": NAMES}
    (_, address), _ = await asyncio.gather(
        start_api(bench, url, "--no-worker", **settings),
        processes.start_worker(bench, url, **settings),
    )
    return await start_driver(bench, "headstart", address, at_once)


async def start_worker(bench: Bench, peer: Peer, python: Path, variables: dict[str, str]) -> str:
    """Start it; the address on which it listens, if it does."""
    context = running([str(python), *peer.worker], bench.work, surroundings(variables))
    process = await bench.stack.enter_async_context(context)
    if not peer.listens:
        return ""
    return await _address(process)


async def start_bare(bench: Bench) -> str:
    """Start the server that does nothing but answer what the figure wants, or next to nothing."""
    file = bench.work / BARE_ANSWER
    if not file.exists():
        file.write_bytes(b"\0")
    command = [sys.executable, "-m", "benchmarks.servers.bare", str(file)]
    process = await bench.stack.enter_async_context(
        running(command, bench.work, clean_environment())
    )
    return await _address(process)


async def _address(process: Process) -> str:
    port = await process.says(r"listening on (\d+)", within=_PATIENCE)
    return f"127.0.0.1:{port}"


async def start_driver(
    bench: Bench,
    adapter: str,
    target: str,
    at_once: int,
    python: Path = Path(sys.executable),
    variables: dict[str, str] | None = None,
) -> Driver:
    """Start a driver with this adapter, whose client so many will use at once."""
    command = [str(python), "-m", f"{__package__}.driver", adapter, target, str(at_once)]
    context = running(command, bench.work, surroundings(variables or {}))
    process = await bench.stack.enter_async_context(context)
    host, _, port = (await _address(process)).partition(":")
    versions = await process.says(r"versions (.*)\.")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
    bench.stack.callback(writer.close)
    return Driver(reader, writer, versions)


def surroundings(variables: dict[str, str]) -> dict[str, str]:
    """The environment of a process that also finds Headstart's own packages."""
    ours = (headstart.__file__, headstart_service.__file__)
    paths = ":".join(str(Path(file).parents[1]) for file in ours if file)
    return clean_environment() | {"PYTHONPATH": paths} | variables


def numbered(url: str, number: int) -> str:
    """The same Redis, but the database that lies so far behind the one of this URL."""
    parts = urlsplit(url)
    chosen = (number_of(url) + number) % _DATABASES
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={chosen}"
    return urlunsplit(parts._replace(path=f"/{chosen}"))


def number_of(url: str) -> int:
    """The number of the database that it names."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return int(parts.query.removeprefix("db=") or 0)
    return int(parts.path.removeprefix("/") or 0)
