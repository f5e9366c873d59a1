"""The slowest answers while a worker has more than it can do, against the same on an idle machine.

`headstart serve` with its worker, as it runs on one machine. Ready results are asked for at an even
pace, whatever came of the call before, so that an answer that is held up holds up nobody's clock.
The queue is filled beforehand and must not be empty at the end: the worker is busy all of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from ..games import Deck, Player, uncommon_words
from ..hand import hand_worker
from ..harness import Bench, Figure
from ..load import grpc_endpoint, paced, require_h2load
from ..processes import start_api
from ..ready import GET, KEY, call, get_request
from ..results import Line, Series, at_most, percentile

_RATE = 400
_RUNS_A_SECOND = 400
"""More than a worker can do."""
_STARTING = 16


async def measure(bench: Bench) -> Sequence[Line]:
    deck = Deck(uncommon_words())
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.keep_game(KEY)
    _, address = await start_api(bench, url, "--worker", MAX_CACHED_RESULTS="100000")
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    player = Player(channel)
    answer = await call(address, GET, get_request())
    endpoint = grpc_endpoint(bench.work, address, GET, get_request(), answer)
    seconds = bench.pick(quick=1.0, full=5)

    async def p99() -> float:
        answers = await paced(endpoint, seconds, _RATE, bench.work / "paced.tsv")
        return percentile([answer.took for answer in answers], 99) * 1000

    async def idle() -> float:
        return await p99()

    async def busy() -> float:
        left = iter(deck.deal(round(_RUNS_A_SECOND * seconds)))

        async def start() -> None:
            for pair in left:
                await player.start(pair)

        await asyncio.gather(*(start() for _ in range(_STARTING)))
        slowest = await p99()
        if not await player.queued():
            raise RuntimeError("the worker had too little to do: raise _RUNS_A_SECOND")
        while await player.queued():  # noqa: ASYNC110  # another process empties it
            await asyncio.sleep(0.05)
        return slowest

    worst, calm = await bench.alternate(busy, idle)
    return [
        Line(
            "ready GetResults beside busy workers, p99",
            "ms",
            Series("worker saturated", worst),
            Series("idle", calm),
            at_most(2),
            f"{_RATE} requests/s",
        )
    ]


FIGURE = Figure("undisturbed", "Answers beside busy workers", measure, needs=require_h2load)
