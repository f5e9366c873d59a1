"""Ready results from the near-cache, against a grpc.aio method that returns a constant.

Both answer the same 18 kB to the same request, under the same load from h2load, which is in C: the
server is the limit. The bare method parses nothing and looks nothing up, so what is missing to 1
is what Headstart does per call: parse, validate, look up, check its age.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..harness import Bench, Figure
from ..load import require_h2load, saturate
from ..ready import ready_game
from ..results import Line, Series, at_least


async def measure(bench: Bench) -> Sequence[Line]:
    ready = await ready_game(bench)
    seconds = bench.pick(quick=0.6, full=3.0)
    ours, bare = await bench.alternate(
        lambda: saturate(ready.headstart, seconds), lambda: saturate(ready.bare, seconds)
    )
    return [
        Line(
            "ready GetResults, near-cache hit",
            "requests/s",
            Series("Headstart", ours),
            Series("bare grpc.aio", bare),
            at_least(0.9),
            f"{len(ready.answer) / 1000:.1f} kB an answer",
        )
    ]


FIGURE = Figure("near-cache", "Ready results from the near-cache", measure, needs=require_h2load)
