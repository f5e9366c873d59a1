"""Starts from one client, one call each, against the same calls of a server that does nothing.

Both get the same requests, each for another key, from this process, and answer with as many bytes.
The bare method parses nothing and stores nothing. What is missing to 1 is validation, the plan, one
script in Redis with its round trip, and a log line. No worker runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

import grpc

from headstart.v1 import precompute_pb2 as pb

from ..harness import Bench, Figure
from ..pipelines import LIGHT, NOOP
from ..processes import start_api, start_server
from ..ready import SERVICE, Unary, unary
from ..results import Line, Series, at_least

_AT_ONCE = 32
_KEPT = "1000000"
"""By default a thousand runs are kept, and then starts are refused."""


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    _, address = await start_api(bench, url, MAX_CACHED_RESULTS=_KEPT, MAX_QUEUED=_KEPT, **LIGHT)
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    start = unary(channel, f"{SERVICE}/StartPrecompute")
    numbers = count()
    file = bench.work / "answer.bin"
    file.write_bytes(await start(_request(next(numbers))))
    _, bare_address = await start_server(bench, "bare", str(file))
    bare_channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(bare_address))
    bare = unary(bare_channel, "bench.Bare/Answer")
    calls = round(bench.pick(quick=2_000, full=10_000))

    async def rate(call: Unary) -> float:
        requests = iter([_request(next(numbers)) for _ in range(calls)])

        async def keep_calling() -> None:
            for request in requests:
                await call(request)

        began = time.perf_counter()
        await asyncio.gather(*(keep_calling() for _ in range(_AT_ONCE)))
        return calls / (time.perf_counter() - began)

    ours, least = await bench.alternate(lambda: rate(start), lambda: rate(bare))
    return [
        Line(
            "starts, one client, one call each",
            "starts/s",
            Series("Headstart", ours),
            Series("bare grpc.aio", least),
            at_least(0.6),
            f"{_AT_ONCE} at once",
        )
    ]


def _request(number: int) -> bytes:
    spec = pb.CustomSpec(pipeline=NOOP.name, inputs_json=f'{{"value": {number}}}')
    return pb.StartPrecomputeRequest(key=f"run-{number}", custom=spec).SerializeToString()


FIGURE = Figure("starts", "Starts from one client", measure)
