"""Ready results read from Redis for every call, against a grpc.aio method that returns a constant.

The near-cache is off, as if every call were the first one of its replica. The reference is that of
`near_cache`: it asks nobody, so this is the price of one round trip to Redis and all around it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..harness import Bench, Figure
from ..load import require_h2load, saturate
from ..ready import ready_game
from ..results import Line, Series, at_least


async def measure(bench: Bench) -> Sequence[Line]:
    ready = await ready_game(bench, NEAR_CACHE_MB="0")
    seconds = bench.pick(quick=0.6, full=3.0)
    ours, bare = await bench.alternate(
        lambda: saturate(ready.headstart, seconds), lambda: saturate(ready.bare, seconds)
    )
    return [
        Line(
            "ready GetResults, read from Redis",
            "requests/s",
            Series("Headstart", ours),
            Series("bare grpc.aio", bare),
            at_least(0.6),
            "near-cache off",
        )
    ]


FIGURE = Figure("redis-read", "Ready results read from Redis", measure, needs=require_h2load)
