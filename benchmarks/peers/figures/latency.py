"""One run at a time: from its start until the one who has started it has its result.

For a no-op this is all that the machinery takes; for a game the computation is in it, the same
functions with one thread on every side, and all of its values as the peer's users would keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...games import Deck, uncommon_words
from ...harness import Bench, Figure
from ...results import Line, Series, at_most, percentile
from ..compare import Comparison, compare
from ..contenders import Driver, Field, start_headstart
from ..roster import BARE_GRPC, CELERY, DOCKET, FLOORS, PEERS, TUNED

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
    title = "no-op, start → result, p50"
    return [
        *comparison.lines(title, "ms", at_most(1)),
        *_without_calls(f"{title}, less two bare calls", comparison),
    ]


def _without_calls(title: str, comparison: Comparison) -> list[Line]:
    """Lines against the peers whose clients talk to Redis themselves.

    Headstart's client talks to a server, which adds a gRPC call to the start and one to the result.
    The floor's time is what two such calls take, so without it both sides do the same.
    """
    floors = [calls for each, calls in comparison.theirs if each.peer is BARE_GRPC]
    return [
        Line(
            f"{title} · {each.peer.name}",
            "ms",
            Series("Headstart", [a - b for a, b in zip(comparison.ours, calls, strict=True)]),
            Series(each.peer.name, samples),
            at_most(1),
            each.driver.versions,
        )
        for calls in floors
        for each, samples in comparison.theirs
        if each.peer in (CELERY, DOCKET)
    ]


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
