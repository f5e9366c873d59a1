"""Ever more callers who wait for one run at one API process, against an asyncio.Event.

As in `figures.waiters`, h2load parks the calls and nothing else; each size has processes of its
own, so that what the one before took and kept is not counted. Memory is what the process grew by
while all waited, for each; a handful of waiters is lost in what a process takes at a time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..hand import HandWorker, hand_worker
from ..harness import Bench, Figure
from ..load import Endpoint, grpc_endpoint, parked, require_h2load
from ..pipelines import LIGHT, NOOP
from ..processes import Process, start_api, start_server
from ..ready import GET, call, get_request
from ..results import Line
from .curve import Curve, part, trace

_SIZES = (10, 100, 1_000, 10_000, 20_000)
_QUICK = _SIZES[:-1]
_ENOUGH_TO_WEIGH = 1_000
_PATIENCE = 300.0


@dataclass
class _Samples:
    """By size."""

    seconds: dict[float, list[float]] = field(default_factory=dict)
    kilobytes: dict[float, list[float]] = field(default_factory=dict)

    def note(self, size: int, seconds: float, grown_mb: float) -> None:
        self.seconds.setdefault(size, []).append(seconds)
        if size >= _ENOUGH_TO_WEIGH:
            self.kilobytes.setdefault(size, []).append(grown_mb * 1000 / size)


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    hand = await bench.stack.enter_async_context(hand_worker(url))
    ours, bare = _Samples(), _Samples()
    sizes = _QUICK if bench.quick else _SIZES
    for repetition in range(2 if bench.quick else 3):
        for size in sizes:
            async with part(bench, 1) as here:
                await _headstart(here, url, hand, f"{size}-{repetition}", size, ours)
                await _bare(here, size, bare)
            bench.tick(1 / (len(sizes) * (2 if bench.quick else 3)))
    seconds, memory = "s until all are answered", "kB resident per waiter"
    return [
        *trace("Headstart", seconds, ours.seconds),
        *trace("bare asyncio.Event", seconds, bare.seconds),
        *trace("Headstart", memory, ours.kilobytes),
        *trace("bare asyncio.Event", memory, bare.kilobytes),
    ]


async def _headstart(
    bench: Bench, url: str, hand: HandWorker, key: str, size: int, samples: _Samples
) -> None:
    api, address = await start_api(bench, url, **LIGHT)
    await hand.start(f"first-{key}", NOOP, {})
    await hand.finish(await hand.claim())
    answer = await call(address, GET, get_request(f"first-{key}"))
    await hand.start(f"awaited-{key}", NOOP, {})
    claim = await hand.claim()
    request = get_request(f"awaited-{key}", wait=_PATIENCE)
    endpoint = grpc_endpoint(bench.work, address, GET, request, len(answer))
    await _park(bench, api, endpoint, size, lambda: hand.finish(claim), samples)


async def _bare(bench: Bench, size: int, samples: _Samples) -> None:
    file = bench.work / "answer.bin"
    file.write_bytes(bytes(120))
    server, address = await start_server(bench, "bare", str(file))
    endpoint = grpc_endpoint(bench.work, address, "bench.Bare/Wait", b"", 120)

    async def fire() -> None:
        await call(address, "bench.Bare/Fire", b"")

    await _park(bench, server, endpoint, size, fire, samples)


async def _park(
    bench: Bench,
    server: Process,
    endpoint: Endpoint,
    size: int,
    end: Callable[[], Awaitable[None]],
    samples: _Samples,
) -> None:
    before = server.resident_mb()
    async with parked(endpoint, size, bench.work / "parked.tsv") as answered:
        await server.idle()
        grown = server.resident_mb() - before
        # Its waiters are told while this goes on, so all of it counts.
        began = time.time()
        await end()
        answers = await answered
    late = sum(answer.ended - answer.took > began for answer in answers)
    if len(answers) != size or late:
        raise RuntimeError(f"of {size}, {len(answers)} waited, {late} came late")
    samples.note(size, max(answer.ended for answer in answers) - began, grown)


CURVE = Curve(
    Figure("waiters", "Waiters on one API process", measure, needs=require_h2load),
    "calls that wait at once",
)
