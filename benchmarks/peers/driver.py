"""The side of a contender that asks: a process in its environment, with its own client.

`python -m benchmarks.peers.driver ADAPTER TARGET AT_ONCE` takes one order a line, as JSON over TCP,
and answers each with a line: what it measured by its own clock, or the error. All contenders are
driven by this same loop; what differs is the adapter.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module, metadata
from itertools import count
from typing import Any, Protocol


class Client(Protocol):
    """What a peer's users do with it. A handle is whatever its own client gives for a run."""

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> Any:
        """Start a run; returns once it is accepted. Gives its handle."""
        ...

    async def find(self, key: str) -> Any:
        """The handle of a run that somebody else has started."""
        ...

    async def wait(self, handle: Any) -> Any:
        """Its result, at once or when it exists."""
        ...


class Adapter(Protocol):
    """A module of `adapters`."""

    PACKAGES: Sequence[str]
    """Whose versions to report."""

    def client(self, target: str, at_once: int) -> AbstractAsyncContextManager[Client]:
        """A client that so many will use at once."""
        ...


class Driver:
    """Carries out orders; each public method is one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = count()
        self._parked: list[asyncio.Task[tuple[float, float]]] = []

    async def run(self, key: str, task: str, arguments: Sequence[Any]) -> int:
        """Run one; how many numbers its result has."""
        return _numbers(await self._client.wait(await self._client.start(key, task, arguments)))

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> None:
        """Start one."""
        await self._client.start(key, task, arguments)

    async def latency(
        self, task: str, arguments: Sequence[Sequence[Any]], seconds: float, least: int
    ) -> list[float]:
        """Seconds from the start to the result, one after the other, while there is time."""
        took: list[float] = []
        until = time.perf_counter() + seconds
        for each in arguments:
            if len(took) >= least and time.perf_counter() > until:
                break
            key = self._key()
            began = time.perf_counter()
            result = await self._client.wait(await self._client.start(key, task, each))
            took.append(time.perf_counter() - began)
            if result is None:
                raise RuntimeError(f"{task} has no result")
        return took

    async def fetch(self, keys: Sequence[str], seconds: float) -> float:
        """How often a second ready results are had, each by one who asks again and again."""
        fetched = 0
        began = time.perf_counter()

        async def keep_fetching(key: str) -> None:
            nonlocal fetched
            while time.perf_counter() < began + seconds:
                await self._client.wait(await self._client.find(key))
                fetched += 1

        await asyncio.gather(*map(keep_fetching, keys))
        return fetched / (time.perf_counter() - began)

    async def starts(self, task: str, arguments: Sequence[Any], number: int, at_once: int) -> float:
        """Starts a second, so many at once."""
        keys = [self._key() for _ in range(number)]
        left = iter(keys)

        async def keep_starting() -> None:
            for key in left:
                await self._client.start(key, task, arguments)

        began = time.perf_counter()
        await asyncio.gather(*(keep_starting() for _ in range(at_once)))
        return number / (time.perf_counter() - began)

    async def park(self, key: str, number: int) -> None:
        """Let so many wait for one run, each for itself."""

        async def wait() -> tuple[float, float]:
            ended = await self._client.wait(await self._client.find(key))
            return float(ended), time.monotonic()

        self._parked = [asyncio.create_task(wait()) for _ in range(number)]

    async def collect(self) -> float:
        """Seconds from the run's end, which is its result, until the last has it."""
        answers = await asyncio.gather(*self._parked)
        ended = {answer[0] for answer in answers}
        if len(ended) != 1 or any(had < end for end, had in answers):
            raise RuntimeError(f"waiters saw {len(ended)} ends, or one that was none yet")
        return max(had - end for end, had in answers)

    def _key(self) -> str:
        return f"run-{next(self._numbers)}"


def _numbers(value: Any) -> int:
    """How many numbers a result is made of, however it is nested."""
    if dataclasses.is_dataclass(value):
        return sum(_numbers(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return sum(map(_numbers, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_numbers, value))
    return int(isinstance(value, float))


async def serve(adapter: Adapter, target: str, at_once: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            try:
                said = {"value": await getattr(driver, order.pop("do"))(**order)}
            except Exception as error:  # noqa: BLE001  # told, and the next order is taken
                traceback.print_exc()
                said = {"error": f"{type(error).__name__}: {error}"}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        writer.close()

    async with adapter.client(target, at_once) as client:
        driver = Driver(client)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**24)
        versions = " ".join(f"{name} {metadata.version(name)}" for name in adapter.PACKAGES)
        print(f"versions {versions}.")
        print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


def main() -> None:
    name, target, at_once = sys.argv[1:]
    adapter: Any = import_module(f".adapters.{name}", __package__)
    asyncio.run(serve(adapter, target, int(at_once)))


if __name__ == "__main__":
    main()
