"""Ready results, against a FastAPI endpoint that reads the same results from Redis as JSON.

Both are one process under the same load and hold the same numbers; FastAPI runs as its
documentation says (`fastapi[standard]`: uvicorn, uvloop, httptools). The target is about the
endpoint that one writes first, which returns what it has loaded; the other lines are what one can
tune it to. JSON is given each float in its shortest form, which is in the endpoint's favour.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf import json_format

from headstart.v1 import precompute_pb2 as pb

from ..environments import peer_python
from ..harness import Bench, Figure
from ..load import Endpoint, require_h2load, saturate
from ..processes import start_server
from ..ready import ready_game
from ..results import Line, Series, at_least

_KEY = "benchmark:json"


async def measure(bench: Bench) -> Sequence[Line]:
    python = await peer_python("fastapi", ["fastapi[standard]", "redis[hiredis]"])
    ready = await ready_game(bench)
    answer = pb.GetResultsResponse.FromString(ready.answer)
    text = json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True))
    redis = await bench.redis(ready.redis_url)
    await redis.set(_KEY, text)
    _, address = await start_server(bench, "json_api", ready.redis_url, python=str(python))
    # Its own spelling of JSON has no spaces.
    compact = len(json.dumps(json.loads(text), separators=(",", ":")))
    plain = _endpoint(address, "plain", compact)
    model = _endpoint(address, "model", compact)
    stored = _endpoint(address, "stored", len(text))
    seconds = bench.pick(quick=0.6, full=3.0)
    ours, slow, typed, through = await bench.alternate(
        *(lambda e=e: saturate(e, seconds) for e in (ready.headstart, plain, model, stored))
    )
    headstart = Series("Headstart", ours)
    size = f"{len(ready.answer) / 1000:.0f} kB of protobuf, {compact / 1000:.0f} kB of JSON"
    return [
        Line(
            "the same as JSON: FastAPI, a dict",
            "requests/s",
            headstart,
            Series("FastAPI, redis-py", slow),
            at_least(20),
            size,
        ),
        Line(
            "… FastAPI, a pydantic response",
            "requests/s",
            headstart,
            Series("FastAPI, redis-py", typed),
        ),
        Line(
            "… FastAPI, stored JSON passed through",
            "requests/s",
            headstart,
            Series("FastAPI, redis-py", through),
        ),
    ]


def _endpoint(address: str, path: str, length: int) -> Endpoint:
    return Endpoint(f"http://{address}/{path}/{_KEY}", length, flags=("--h1",))


FIGURE = Figure("fastapi", "The same results from FastAPI as JSON", measure, needs=require_h2load)
