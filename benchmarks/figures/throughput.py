"""Games a second when there are always more, against the same games in batches in one process.

`headstart serve` has the machine to share with the one who asks; the bare process has it alone, is
handed games in the batches that suit it best, and keeps nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import grpc

from ..games import Deck, Player, bare_computation
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_least

_AT_ONCE = 96
_BEST_BATCH = 32
"""Games, so 64 words: the encoder's best batch, and the scan's."""


async def measure(bench: Bench) -> Sequence[Line]:
    deck = Deck()
    url = await bench.valkey()
    (_, address), bare = await asyncio.gather(
        start_api(bench, url, "--worker", MAX_CACHED_RESULTS="100000"),
        bare_computation(bench),
    )
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    number = round(bench.pick(quick=6, full=32)) * _BEST_BATCH
    hands, bare_hands = count(), count()

    async def ours() -> float:
        return await player.play_all(deck.deal(next(hands), number), _AT_ONCE)

    async def batches() -> float:
        took = await bare.play(deck.deal(next(bare_hands), number), batch=_BEST_BATCH)
        return number / sum(took)

    played, computed = await bench.alternate(ours, batches)
    return [
        Line(
            "bridging runs, saturated",
            "runs/s",
            Series("Headstart", played),
            Series("best batches, one process", computed),
            at_least(0.65),
            f"{_AT_ONCE} at once, load on the same cores",
        )
    ]


FIGURE = Figure("throughput", "Games a second, saturated", measure)
