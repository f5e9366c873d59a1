"""Starts as fast as they go from one client process, each accepted before it counts.

No worker runs, so that the broker has all of the machine: what a start is, is that Redis has it.
FastAPI and the seed have no broker; they compute the no-op in their own process, and it is lost
with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...harness import Bench, Figure
from ...processes import start_api
from ...results import Line, at_least
from ..compare import compare
from ..contenders import Driver, Field, start_driver
from ..pipelines import NAMES
from ..roster import FLOORS, PEERS

_AT_ONCE = 32
_KEPT = "1000000"


async def measure(bench: Bench) -> Sequence[Line]:
    number = round(bench.pick(quick=500, full=2_000))
    url = await bench.valkey()
    _, address = await start_api(
        bench,
        url,
        "--no-worker",
        BRIDGING="false",
        PIPELINES=NAMES,
        # Its default is a thousand runs, and then it refuses; the peers have no bound.
        MAX_CACHED_RESULTS=_KEPT,
    )
    headstart = await start_driver(bench, "headstart", address, _AT_ONCE)
    field = Field(bench, url, _AT_ONCE)

    async def works(driver: Driver) -> None:
        await driver.tell("start", key="first", task="noop", arguments=[1])

    await works(headstart)
    idle = [replace(peer, worker=()) if not peer.listens else peer for peer in PEERS]
    await field.enter((*idle, *FLOORS), works)

    async def rate(driver: Driver, _: str) -> float:
        order = {"task": "noop", "arguments": [1], "number": number, "at_once": _AT_ONCE}
        return float(await driver.tell("starts", **order))

    comparison = await compare(bench, headstart, field, rate)
    return comparison.lines(f"{number:,} starts", "starts/s", at_least(1))


FIGURE = Figure("starts-2000", "Starts from one client process", measure)
