"""Games a second when there are always more, against the same games in batches in one process.

`headstart serve` has the machine to share with the one who asks; the bare process has it alone, is
handed games in the batches that suit it best, and keeps nothing. The words are new ones, which have
to be embedded; the second line is for words of the vocabulary, whose embeddings a worker knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from ..games import Deck, Player, bare_computation, common_words, uncommon_words
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_least

_AT_ONCE = 96
_BEST_BATCH = 32
"""Games, so 64 words: the encoder's best batch, and the scan's."""


async def measure(bench: Bench) -> Sequence[Line]:
    deck, bare_deck, usual = Deck(uncommon_words()), Deck(uncommon_words()), Deck(common_words())
    url = await bench.valkey()
    (_, address), bare = await asyncio.gather(
        start_api(bench, url, "--worker", MAX_CACHED_RESULTS="100000"),
        bare_computation(bench),
    )
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    number = round(bench.pick(quick=6, full=32)) * _BEST_BATCH

    async def ours(deck: Deck) -> float:
        return await player.play_all(deck.deal(number), _AT_ONCE)

    async def batches() -> float:
        took = await bare.play(bare_deck.deal(number), batch=_BEST_BATCH)
        return number / sum(took)

    played, known, computed = await bench.alternate(
        lambda: ours(deck), lambda: ours(usual), batches
    )
    best = Series("best batches, one process", computed)
    return [
        Line(
            "bridging runs, saturated",
            "runs/s",
            Series("Headstart", played),
            best,
            at_least(0.65),
            f"{_AT_ONCE} at once, load on the same cores",
        ),
        Line("… with words of the vocabulary", "runs/s", Series("Headstart", known), best),
    ]


FIGURE = Figure("throughput", "Games a second, saturated", measure)
