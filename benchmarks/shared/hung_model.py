"""What 100 games whose language model never answers do to games that need none.

A human's game is played from its start to all of its results, alone and beside 100 games whose
calls hang: they wait in the worker, more of them than it has slots, and compute nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc

from ..games import Deck, Pair, Player, common_words
from ..harness import Bench, Figure
from ..processes import start_api
from ..results import Line, Series, at_most, percentile

_HUNG = 100
_FACTOR = 1.5
_SETTLED = 1.0
"""Seconds without a further call, after which none is expected."""


class _SilentModel:
    """An HTTP server that takes requests and answers none."""

    def __init__(self) -> None:
        self.calls = 0
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._hear, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()
            self.calls -= 1


async def measure(bench: Bench) -> Sequence[Line]:
    games = round(bench.pick(quick=40, full=100))
    deck = Deck(common_words())
    model = _SilentModel()
    await bench.stack.enter_async_context(model.serving())
    api = {"ANTHROPIC_API_KEY": "none", "ANTHROPIC_BASE_URL": model.url}
    _, address = await start_api(bench, await bench.valkey(), "--worker", **api)
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    stub: pb_grpc.PrecomputeServiceAsyncStub = pb_grpc.PrecomputeServiceStub(channel)

    async def typical() -> float:
        took = [await player.play(pair) for pair in deck.deal(games)]
        return percentile(took, 50) * 1000

    async def beside() -> float:
        async with _hung(stub, model, deck.deal(_HUNG)):
            return await typical()

    alone, beside_hung = await bench.alternate(typical, beside)
    return [
        Line(
            f"Start → all results beside {_HUNG} hung games, p50",
            "ms",
            Series("human game", beside_hung),
            Series("alone", alone),
            at_most(_FACTOR),
        )
    ]


@asynccontextmanager
async def _hung(
    stub: pb_grpc.PrecomputeServiceAsyncStub, model: _SilentModel, pairs: Sequence[Pair]
) -> AsyncIterator[None]:
    """Have a game for each pair hang in its call, or queue for one, while the context is open."""
    keys = [f"hung-{number}" for number in range(len(pairs))]
    for key, (anchor, target) in zip(keys, pairs, strict=True):
        spec = pb.BridgingSpec(anchor=anchor, target=target, recipient_type=pb.RECIPIENT_TYPE_HAIKU)
        await stub.StartPrecompute(pb.StartPrecomputeRequest(key=key, bridging=spec))
    seen = -1
    while (calls := model.calls) == 0 or calls > seen:
        seen = calls
        await asyncio.sleep(_SETTLED)
    try:
        yield
    finally:
        for key in keys:
            await stub.CancelPrecompute(pb.CancelPrecomputeRequest(key=key))
        while model.calls:  # noqa: ASYNC110  # another process ends them
            await asyncio.sleep(_SETTLED)


HUNG_MODEL = Figure("hung-model", "Human games beside a language model that hangs", measure)
