"""The caller's latency of a submit with `get_or_compute`, in every state of the service.

A submit needs the values of three steps. In each repetition some are made with the service and, in
turn with them, as many with pure live computation of the same functions. The caller is this
process; the service, its worker and its store are processes of their own, and are stopped (SIGSTOP)
and killed (SIGKILL) for real.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from headstart import PrecomputeClient, ResourceExhausted

from ..harness import Bench, Figure
from ..processes import Process, start_api, start_worker
from ..results import Line, Series, at_most, percentile
from .pipeline import LIVE, choose, find, write
from .proxy import delayed

BUDGET = 0.025
"""Seconds: the client's own default."""
_CALLS = 0.005
"""Seconds that ten calls at once may take of the caller's own loop."""
_TOGETHER = 10
"""Submits at a time."""
_SLOW = 0.06
"""Seconds that a slow network takes each way: an answer takes twice that, five times the budget."""
_EARLY = 0.1
"""Seconds that a run which was started late has had."""
_OTHERS = 20
"""Runs that others start for each of the caller's when the service is overloaded."""
_SETTINGS = {"BRIDGING": "false", "PIPELINES": "benchmarks.never_worse.pipeline:QUESTION"}
_DEADLINE = 30.0


@dataclass
class Service:
    """A service, and a client that asks it."""

    api: Process
    client: PrecomputeClient
    store: int
    """The process id of its Valkey."""
    numbers: Iterator[int] = field(default_factory=count)

    def key(self) -> str:
        return f"question-{next(self.numbers)}"

    async def start(self, key: str) -> None:
        await self.client.start(key, "question", {"question": key}, timeout=20)


Prepare = Callable[[Service], Awaitable[str]]
"""Makes one submit's run, and gives its key; not measured."""


def fallbacks(question: str) -> dict[str, Callable[..., Awaitable[Any]]]:
    async def facts() -> str:
        return await find(question)

    async def style() -> str:
        return await choose(question)

    async def answer(facts: str) -> str:
        return await write(facts)

    return {"facts": facts, "style": style, "answer": answer}


async def live(question: str) -> None:
    """What a caller without the service does."""

    async def answered() -> str:
        return await write(await find(question))

    await asyncio.gather(answered(), choose(question))


async def ready(service: Service) -> str:
    key = service.key()
    await service.start(key)
    await service.client.get_results(key, wait=20)
    return key


async def begun(service: Service) -> str:
    key = service.key()
    await service.start(key)
    await asyncio.sleep(_EARLY)
    return key


async def unknown(service: Service) -> str:
    return service.key()


async def queued(service: Service) -> str:
    """Behind runs of others, which come faster than they end; maybe there is no place at all."""
    key = service.key()
    with suppress(ResourceExhausted):
        for _ in range(_OTHERS):
            await service.start(service.key())
        await service.start(key)
    return key


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    store = (await redis.info("server"))["process_id"]
    await start_worker(bench, url, **_SETTINGS, WORKER_CONCURRENCY="16")
    lines: list[Line] = []

    async def scene(title: str, service: Service, prepare: Prepare) -> None:
        lines.extend(await _scene(bench, title, service, prepare))

    async with _service(bench, url, store) as service:
        await scene("ready", service, ready)
        await scene("started 0.1 s before", service, begun)
        await scene("never started", service, unknown)
        known = [await ready(service) for _ in range(_TOGETHER)]

        async def old(_: Service) -> str:
            return known[next(service.numbers) % len(known)]

        address = await _address(service)
        async with delayed(address, _SLOW) as slow, PrecomputeClient(slow) as client:
            await client.connect()
            await scene("slow network, ready", Service(service.api, client, store), old)
        with _stopped(store):
            await scene("store hangs", service, unknown)
        with _stopped(service.api.pid):
            await scene("service hangs", service, old)
    async with _service(bench, url, store) as service:
        await scene("overloaded, queued", service, queued)
    async with _service(bench, url, store) as service:
        os.kill(service.api.pid, signal.SIGKILL)
        await scene("service killed", service, unknown)
    return lines


class _stopped:  # noqa: N801  # a context manager, named as it reads
    """A process that is stopped while the context is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


@asynccontextmanager
async def _service(bench: Bench, url: str, store: int) -> AsyncIterator[Service]:
    api, address = await start_api(bench, url, **_SETTINGS)
    async with PrecomputeClient(address) as client:
        await client.connect()
        service = Service(api, client, store)
        yield service


async def _address(service: Service) -> str:
    address: str = await service.api.says(r"Headstart serves on (\S+)\. Try")
    return address


async def _scene(bench: Bench, title: str, service: Service, prepare: Prepare) -> list[Line]:
    """One state of the service: the middle and the slow end of what a submit takes."""
    batches = int(bench.pick(quick=2, full=4))
    repeats = 3 if bench.quick else 7
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    sources: Counter[str] = Counter()

    async def submit(key: str) -> float:
        began = time.perf_counter()
        computed = await service.client.get_or_compute(
            key, _DEADLINE, fallbacks(key), budget=BUDGET
        )
        took = time.perf_counter() - began
        sources.update(computed.sources.values())
        return took

    async def alone(key: str) -> float:
        began = time.perf_counter()
        await live(key)
        return time.perf_counter() - began

    for _ in range(repeats):
        gc.collect()
        with_service: list[float] = []
        without: list[float] = []
        for _ in range(batches):
            keys = await asyncio.gather(*(prepare(service) for _ in range(_TOGETHER)))
            with_service += await asyncio.gather(*map(submit, keys))
            without += await asyncio.gather(*map(alone, keys))
        ours.append(with_service)
        theirs.append(without)
        bench.tick(1 / (8 * repeats))
    said = ", ".join(f"{n} {source}" for source, n in sorted(sources.items()))
    return [
        Line(
            f"{title}, {name}",
            "ms",
            Series("get_or_compute", [1e3 * percentile(each, percent) for each in ours]),
            Series("live", [1e3 * percentile(each, percent) for each in theirs]),
            at_most(1 + (BUDGET + _CALLS) / LIVE),
            said,
        )
        for name, percent in (("p50", 50), ("p99", 99))
    ]


FIGURE = Figure("never-worse", "A submit, beside computing live", measure)
