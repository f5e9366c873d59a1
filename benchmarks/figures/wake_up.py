"""From the end of a run's last step to its waiter's answer, against the two hops that it must take.

A worker process ends a step and notes the time by the clock that all processes share; the answer
carries it. Between lie the commit, the announcement to the API process, its read and the answer.
The reference is the least that any such design needs: a bare publish until its subscriber has it,
and one bare gRPC call with an answer of the same size, one after the other.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from itertools import count

import grpc
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb

from ..harness import Bench, Figure
from ..pipelines import LIGHT, STAMP
from ..processes import start_api, start_server, start_worker
from ..ready import GET, SERVICE, Unary, get_request, unary
from ..results import Line, Series, at_most, percentile

_CHANNEL = "benchmark:channel"
_MESSAGE = b"ended 1 - default:run-0000"


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    (_, address), _ = await asyncio.gather(
        start_api(bench, url, **LIGHT), start_worker(bench, url, **LIGHT)
    )
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    start = unary(channel, f"{SERVICE}/StartPrecompute")
    get = unary(channel, GET)
    keys = (f"run-{number}" for number in count())
    answer, _ = await _run(start, get, next(keys))
    file = bench.work / "answer.bin"
    file.write_bytes(answer)
    _, bare_address = await start_server(bench, "bare", str(file))
    bare = await bench.stack.enter_async_context(grpc.aio.insecure_channel(bare_address))
    call = unary(bare, "bench.Bare/Answer")
    redis = await bench.redis(url)
    number = round(bench.pick(quick=40, full=200))

    async def ours() -> float:
        took = [(await _run(start, get, next(keys)))[1] for _ in range(number)]
        return percentile(took, 50) * 1000

    async def hops() -> float:
        published = await _publish(redis, number)
        called = []
        for _ in range(number):
            began = time.monotonic()
            await call(get_request())
            called.append(time.monotonic() - began)
        return (percentile(published, 50) + percentile(called, 50)) * 1000

    waited, least = await bench.alternate(ours, hops)
    return [
        Line(
            "last step's end → waiter answered, p50",
            "ms",
            Series("Headstart", waited),
            Series("publish→receive + gRPC call", least),
            at_most(3),
            "worker, API and waiter in three processes",
        )
    ]


async def _run(start: Unary, get: Unary, key: str) -> tuple[bytes, float]:
    """The answer to who waits for a run, and how long after the step's end it came."""
    spec = pb.CustomSpec(pipeline=STAMP.name)
    await start(pb.StartPrecomputeRequest(key=key, custom=spec).SerializeToString())
    answer = await get(get_request(key, wait=10))
    now = time.monotonic()
    results = pb.GetResultsResponse.FromString(answer)
    return answer, now - json.loads(results.custom.artifacts["stamp"].json)


async def _publish(redis: Redis, number: int) -> list[float]:
    took = []
    async with redis.pubsub() as subscriber:
        await subscriber.subscribe(_CHANNEL)
        await subscriber.get_message(timeout=5)
        for _ in range(number):
            began = time.monotonic()
            publishing = asyncio.ensure_future(redis.publish(_CHANNEL, _MESSAGE))
            await subscriber.get_message(timeout=5)
            took.append(time.monotonic() - began)
            await publishing
    return took


FIGURE = Figure("wake-up", "From a step's end to its waiter", measure)
