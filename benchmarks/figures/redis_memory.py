"""What Redis needs to keep a game, against the numbers that it is made of.

The growth of its own count of used memory over many games against Haiku, each with twelve
vectors of 384 numbers and 100 null samples; so it has the keys, the indexes and the allocator's
rounding in it. The reference is these numbers alone, at four bytes each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from ..hand import DIMENSION, hand_worker
from ..harness import Bench, Figure
from ..results import Line, Series, at_most

_VECTORS, _SAMPLES = 12, 100
_PAYLOAD = (_VECTORS * DIMENSION + _SAMPLES) * 4


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    hand = await bench.stack.enter_async_context(hand_worker(url))
    number = round(bench.pick(quick=200, full=500))
    numbers = count()

    async def used() -> int:
        await asyncio.sleep(0.1)  # what a command needed while it ran is given back
        info = await redis.info("memory")
        return int(info["used_memory"])

    async def growth() -> float:
        before = await used()
        await hand.keep_games([f"game-{next(numbers):08}" for _ in range(number)])
        return (await used() - before) / number

    (kept,) = await bench.alternate(growth)
    return [
        Line(
            "Redis memory of a bridging result",
            "bytes",
            Series("Headstart", kept),
            Series("its numbers as float32", [_PAYLOAD] * len(kept)),
            at_most(1.1),
            "keys, indexes and allocator included",
        )
    ]


FIGURE = Figure("redis-memory", "Redis memory of a result", measure)
