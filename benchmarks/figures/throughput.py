"""Games a second when there are always more, against the same games in batches in one process.

`headstart serve` has the machine to share with the one who asks; the bare process has it alone, is
handed games in the batches that suit it best, and keeps nothing. The words are new ones, which have
to be embedded; the second line is for words of the vocabulary, whose embeddings a worker knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from ..engines import ENGINES
from ..games import BareComputation, Deck, Player, bare_computation, common_words, uncommon_words
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_least

_AT_ONCE = 96
_BEST_BATCH = 32
"""Games, so 64 words: the encoder's best batch, and the scan's."""


async def measure(bench: Bench) -> Sequence[Line]:
    deck, bare_deck, usual = Deck(uncommon_words()), Deck(uncommon_words()), Deck(common_words())
    url = await bench.valkey()
    _, address = await start_api(bench, url, "--worker", MAX_CACHED_RESULTS="100000")
    library, runtime = [await bare_computation(bench, engine) for engine in ENGINES]
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    number = round(bench.pick(quick=6, full=32)) * _BEST_BATCH

    async def ours(deck: Deck) -> float:
        return await player.play_all(deck.deal(number), _AT_ONCE)

    async def batches(bare: BareComputation) -> float:
        took = await bare.play(bare_deck.deal(number), batch=_BEST_BATCH)
        return number / sum(took)

    played, known, by_library, by_runtime = await bench.alternate(
        lambda: ours(deck),
        lambda: ours(usual),
        lambda: batches(library),
        lambda: batches(runtime),
    )
    best = Series("best sentence-transformers batches, one process", by_library)
    return [
        Line(
            "bridging runs, saturated",
            "runs/s",
            Series("Headstart", played),
            best,
            at_least(1.3),
            f"{_AT_ONCE} at once, load on the same cores",
        ),
        Line(
            "… against the encoder's own engine",
            "runs/s",
            Series("Headstart", played),
            Series("best ONNX batches, one process", by_runtime),
            at_least(0.6),
        ),
        Line("… with words of the vocabulary", "runs/s", Series("Headstart", known), best),
    ]


FIGURE = Figure("throughput", "Games a second, saturated", measure)
