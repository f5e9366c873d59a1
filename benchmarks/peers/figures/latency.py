"""One run at a time: from its start until the one who has started it has its result.

For a no-op this is all that the machinery takes; for a game the computation is in it, the same
functions with one thread on every side, and all of its values as the peer's users would keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...games import Deck, uncommon_words
from ...harness import Bench, Figure
from ...results import Line, at_most, percentile
from ..compare import compare
from ..contenders import Driver, Field, start_headstart
from ..roster import FLOORS, PEERS, TUNED

_LEAST = 3
_GAME_NUMBERS = 2 * 384 + 5 * 384 + 100


async def noop(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    headstart = await start_headstart(bench, url, at_once=1, BRIDGING="false")
    field = Field(bench, url, at_once=1)

    async def works(driver: Driver) -> None:
        await driver.tell("run", key="first", task="noop", arguments=[1])

    await works(headstart)
    await field.enter((*PEERS, *TUNED, *FLOORS), works)
    orders = [[number] for number in range(round(bench.pick(quick=100, full=300)))]
    seconds = bench.pick(quick=0.7, full=2.0)

    async def p50(driver: Driver, _: str) -> float:
        return await _p50(driver, "noop", orders, seconds)

    comparison = await compare(bench, headstart, field, p50)
    return comparison.lines("no-op, start → result, p50", "ms", at_most(1))


async def game(bench: Bench) -> Sequence[Line]:
    deck = Deck(uncommon_words())
    url = await bench.valkey()
    headstart = await start_headstart(bench, url, at_once=1)
    field = Field(bench, url, at_once=1, games=True)

    async def works(driver: Driver) -> None:
        numbers = await driver.tell("run", key="first", task="game", arguments=["ocean", "forest"])
        if numbers != _GAME_NUMBERS:
            raise RuntimeError(f"a game has {numbers} numbers, not {_GAME_NUMBERS}")

    await works(headstart)
    # Each of them loads the model as well, which takes a while.
    tuned = () if bench.quick else TUNED
    await field.enter((*PEERS, *tuned), works)
    number = round(bench.pick(quick=30, full=100))
    seconds = bench.pick(quick=0.7, full=2.0)

    async def p50(driver: Driver, _: str) -> float:
        return await _p50(driver, "game", deck.deal(number), seconds)

    comparison = await compare(bench, headstart, field, p50)
    return comparison.lines("game, start → all results, p50", "ms", at_most(1))


async def _p50(driver: Driver, task: str, orders: Sequence[Any], seconds: float) -> float:
    took = await driver.tell("latency", task=task, arguments=orders, seconds=seconds, least=_LEAST)
    return percentile(took, 50) * 1000


NOOP = Figure("noop-latency", "From the start of a no-op to its result", noop)
GAME = Figure("game-latency", "From the start of a game to its results", game)
