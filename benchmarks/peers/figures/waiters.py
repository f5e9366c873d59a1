"""A thousand who wait in one client process for one run, each for itself.

The run ends when a file appears; its result is the moment of its end, by the clock that all
processes of a machine share. What counts is the time from there until the last one has the result.
Connections to Redis are counted while all wait: those of the client, of the worker and of a server
between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from ...harness import Bench, Figure
from ...results import Line, Series, at_most
from ..compare import compare
from ..contenders import Contender, Driver, Field, number_of, start_headstart
from ..roster import PEERS, TUNED

_NUMBER = 1_000


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    headstart = await start_headstart(bench, url, at_once=_NUMBER, BRIDGING="false")
    field = Field(bench, url, _NUMBER)

    async def works(driver: Driver) -> None:
        await driver.tell("run", key="first", task="noop", arguments=[1])

    await works(headstart)
    # A thousand who look every 20 ms are more than one uvicorn process answers.
    tuned = [peer for peer in TUNED if not peer.listens]
    await field.enter((*PEERS, *tuned), works)
    redis = await bench.redis(url)
    gates = count()
    parked = bench.pick(quick=2.0, full=3.0)
    databases = {"Headstart": number_of(url)}
    databases |= {each.peer.name: each.database for each in field.contenders}
    connections: dict[str, list[float]] = {name: [] for name in databases}

    async def last(driver: Driver, name: str) -> float:
        gate = bench.work / f"gate-{next(gates)}"
        await driver.tell("start", key=gate.name, task="gate", arguments=[str(gate)])
        await driver.tell("park", key=gate.name, number=_NUMBER)
        await asyncio.sleep(parked)
        clients = await redis.client_list()
        others = [each for each in clients if each["name"] != "benchmark"]
        connections[name].append(float(sum(int(each["db"]) == databases[name] for each in others)))
        gate.touch()
        return float(await driver.tell("collect"))

    def used(contender: Contender) -> str:
        held = connections[contender.peer.name]
        return f"{max(held):.0f} Redis connections, Headstart {max(connections['Headstart']):.0f}"

    comparison = await compare(bench, headstart, field, last)
    lines = comparison.lines(f"{_NUMBER:,} wait for one run, end → last", "s", at_most(1), used)
    names = ["Headstart", *(contender.peer.name for contender, _ in comparison.theirs)]
    return [
        *lines,
        *(
            Line(f"… Redis connections · {name}", "connections", Series(name, connections[name]))
            for name in names
        ),
    ]


FIGURE = Figure("waiters-1000", "A thousand who wait for one run", measure)
