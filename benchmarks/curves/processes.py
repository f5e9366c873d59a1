"""More processes on the same machine: API processes under one load, workers under one queue.

All of it shares this machine's cores with the one who asks and with Valkey, so the curves say when
cores run out; what one process can do on a core of its own is its first point, at most.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial

import grpc

from ..games import Deck, Player, uncommon_words
from ..hand import hand_worker
from ..harness import Bench, Figure
from ..load import Endpoint, grpc_endpoint, require_h2load, saturate
from ..processes import start_api, start_worker
from ..ready import GET, KEY, call, get_request
from ..results import Line, Series
from .curve import Curve, part, repeats, trace

_SIZES = (1, 2, 4)
_PASSES: Mapping[str, Mapping[str, str]] = {
    "near-cache": {},
    "read from Redis": {"NEAR_CACHE_MB": "0"},
}
_AT_ONCE, _GAMES = 128, 32


async def measure_api(bench: Bench) -> Sequence[Line]:
    require_h2load()
    seconds = bench.pick(quick=0.6, full=2.0)
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.keep_game(KEY)
    lines = []
    for name, settings in _PASSES.items():
        async with part(bench, len(_PASSES)) as here:
            started = [await start_api(here, url, **settings) for _ in range(_SIZES[-1])]
            addresses = [address for _, address in started]
            answer = await call(addresses[0], GET, get_request())
            endpoints = [
                grpc_endpoint(here.work, address, GET, get_request(), answer)
                for address in addresses
            ]
            rates = await here.alternate(
                *(partial(_load, endpoints[:size], seconds) for size in _SIZES),
                repeats=repeats(bench),
            )
            samples = dict(zip(map(float, _SIZES), rates, strict=True))
            lines += trace(name, "requests/s, all together", samples)
    return [*lines, _cores()]


async def _load(endpoints: Sequence[Endpoint], seconds: float) -> float:
    """Requests a second of all, each under a load of its own at the same time."""
    return sum(await asyncio.gather(*(saturate(each, seconds) for each in endpoints)))


async def measure_workers(bench: Bench) -> Sequence[Line]:
    deck = Deck(uncommon_words())
    games = round(bench.pick(quick=4, full=12)) * _GAMES
    samples: dict[float, list[float]] = {}
    for size in _SIZES:
        async with part(bench, len(_SIZES)) as here:
            url = await here.valkey()
            _, address = await start_api(here, url, MAX_CACHED_RESULTS="100000")
            await asyncio.gather(*(start_worker(here, url) for _ in range(size)))
            channel = await here.stack.enter_async_context(grpc.aio.insecure_channel(address))
            player = Player(channel)

            async def play(player: Player = player) -> float:
                return await player.play_all(deck.deal(games), _AT_ONCE)

            (samples[size],) = await here.alternate(play, repeats=repeats(bench))
    return [*trace("games against a person", "games/s, all together", samples), _cores()]


def _cores() -> Line:
    return Line("cores of this machine", "cores", Series("", [len(os.sched_getaffinity(0))]))


API = Curve(
    Figure("api-processes", "Ready answers, by API processes on one machine", measure_api),
    "API processes",
)
WORKERS = Curve(
    Figure("workers", "Games a second, by workers on one machine", measure_workers), "workers"
)
