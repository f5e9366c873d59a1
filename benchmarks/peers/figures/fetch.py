"""Ready results, fetched again and again by one client process: so many at once, each another.

The numbers are those of a finished game against Haiku, 18 kB as Headstart keeps it. Each peer's
worker has stored the same numbers in the peer's own format, each number in the shortest decimal
form that is the same float32; and each client gives them to its caller as Python numbers. The
floors hand out 18 kB that nobody parses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf import json_format

from headstart.v1 import precompute_pb2 as pb

from ...hand import hand_worker
from ...harness import Bench, Figure
from ...processes import start_api
from ...ready import GET, call, get_request
from ...results import Line, at_least
from ..compare import compare
from ..contenders import BARE_ANSWER, Contender, Driver, Field, start_driver
from ..roster import FLOORS, PEERS

_AT_ONCE = 32
_NUMBERS = 12 * 384 + 100


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    keys = [f"ready-{number}" for number in range(_AT_ONCE)]
    async with hand_worker(url) as hand:
        await hand.keep_games(keys)
    _, address = await start_api(bench, url)
    answer = await call(address, GET, get_request(keys[0]))
    values = json_format.MessageToDict(
        pb.GetResultsResponse.FromString(answer).bridging, preserving_proto_field_name=True
    )
    file = bench.work / "values.json"
    file.write_text(json.dumps(values))
    raw = bench.work / BARE_ANSWER
    raw.write_bytes(answer)
    headstart = await start_driver(bench, "headstart", address, _AT_ONCE)
    field = Field(bench, url, _AT_ONCE)

    async def keeps(driver: Driver) -> None:
        for key in keys:
            numbers = await driver.tell("run", key=key, task="kept", arguments=[str(file)])
            if numbers != _NUMBERS:
                raise RuntimeError(f"the result has {numbers} numbers, not {_NUMBERS}")

    async def answers(driver: Driver) -> None:
        for key in keys:
            await driver.tell("run", key=key, task="kept", arguments=[str(raw)])

    await field.enter(PEERS, keeps)
    await field.enter(FLOORS, answers)
    seconds = bench.pick(quick=1.0, full=3.0)

    async def rate(driver: Driver, _: str) -> float:
        return float(await driver.tell("fetch", keys=keys, seconds=seconds))

    def stored_as(contender: Contender) -> str:
        return contender.peer.format

    comparison = await compare(bench, headstart, field, rate)
    return comparison.lines("ready result, fetched", "results/s", at_least(1), stored_as)


FIGURE = Figure("fetch-ready", "A ready result, fetched by a Python client", measure)
