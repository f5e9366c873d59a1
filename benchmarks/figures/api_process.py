"""How soon an API process is ready, its memory after it has served, and nothing heavy in it.

It is ready when it says so, with its Redis running; compiled modules are there. Its memory is
measured after a burst of load and with ready answers in its near-cache, in several processes one
after the other; the libraries are those that the kernel has mapped for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..load import grpc_endpoint, require_h2load, saturate
from ..processes import start_api
from ..ready import GET, call, get_request
from ..results import Line, Series, at_most

_HEAVY = ("torch", "numpy", "onnxruntime", "sentence_transformers")
_GAMES = 200


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    keys = [f"game-{number}" for number in range(_GAMES)]
    async with hand_worker(url) as hand:
        await hand.keep_games(keys)
    heavy: list[float] = []
    ready: list[float] = []

    async def resident() -> float:
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            api, address = await start_api(replace(bench, stack=stack), url)
            ready.append(time.perf_counter() - began)
            for key in keys:
                answer = await call(address, GET, get_request(key))
            request = get_request(keys[0])
            endpoint = grpc_endpoint(bench.work, address, GET, request, answer)
            await saturate(endpoint, bench.pick(quick=0.5, full=2.0))
            found = {name for name in _HEAVY if any(f"/{name}" in p for p in api.libraries())}
            heavy.append(float(len(found)))
            return api.resident_mb()

    (held,) = await bench.alternate(resident)
    return [
        Line(
            "API process, start to ready",
            "s",
            Series("Headstart", ready[1:]),
            target=at_most(1),
        ),
        Line(
            "API process, resident",
            "MB",
            Series("Headstart", held),
            target=at_most(90),
            note=f"{_GAMES} games in its near-cache",
        ),
        Line(
            "… torch, numpy, onnxruntime in it",
            "libraries",
            Series("Headstart", heavy),
            target=at_most(0),
        ),
    ]


FIGURE = Figure("api-process", "What an API process needs", measure, needs=require_h2load)
