"""One game at a time, from its start to all of its results, against calling the functions.

Both use the same encoder with the same number of threads, the same scan, neighbours and null
samples, on the same words, new ones for every game. What Headstart adds is two calls, the queue,
the commits and the wake-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import grpc

from ..games import Deck, Player, bare_computation
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_most, percentile


async def measure(bench: Bench) -> Sequence[Line]:
    deck = Deck()
    url = await bench.valkey()
    (_, address), bare = await asyncio.gather(
        start_api(bench, url, "--worker"), bare_computation(bench)
    )
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    number = round(bench.pick(quick=15, full=60))
    hands, bare_hands = count(), count()

    async def ours() -> float:
        took = [await player.play(pair) for pair in deck.deal(next(hands), number)]
        return percentile(took, 50) * 1000

    async def direct() -> float:
        took = await bare.play(deck.deal(next(bare_hands), number), batch=1)
        return percentile(took, 50) * 1000

    played, computed = await bench.alternate(ours, direct)
    return [
        Line(
            "Start → all bridging results, idle, p50",
            "ms",
            Series("Headstart", played),
            Series("functions called", computed),
            at_most(1.5),
            "1 thread each",
        )
    ]


FIGURE = Figure("first-game", "A game on an idle machine", measure)
