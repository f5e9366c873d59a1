"""One game at a time, from its start to all of its results, against calling the functions.

The functions embed with sentence-transformers, one thread, as a pipeline without Headstart would.
Both use the same scan, neighbours and null samples, on the same words, new ones for every game and
none of them in the vocabulary. What Headstart adds is two calls, the queue, the commits and the
wake-up. The second line is of words that the vocabulary has, as players choose them: a worker knows
their embeddings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from ..games import Deck, Player, bare_computation, common_words, uncommon_words
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_most, percentile


async def measure(bench: Bench) -> Sequence[Line]:
    deck, bare_deck, usual = Deck(uncommon_words()), Deck(uncommon_words()), Deck(common_words())
    url = await bench.valkey()
    (_, address), bare = await asyncio.gather(
        start_api(bench, url, "--worker"), bare_computation(bench)
    )
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    number = round(bench.pick(quick=15, full=60))

    async def ours(deck: Deck) -> float:
        took = [await player.play(pair) for pair in deck.deal(number)]
        return percentile(took, 50) * 1000

    async def direct() -> float:
        took = await bare.play(bare_deck.deal(number), batch=1)
        return percentile(took, 50) * 1000

    played, known, computed = await bench.alternate(lambda: ours(deck), lambda: ours(usual), direct)
    functions = Series("functions called", computed)
    return [
        Line(
            "Start → all bridging results, idle, p50",
            "ms",
            Series("Headstart", played),
            functions,
            at_most(1.0),
            "1 thread each",
        ),
        Line("… with words of the vocabulary", "ms", Series("Headstart", known), functions),
    ]


FIGURE = Figure("first-game", "A game on an idle machine", measure)
