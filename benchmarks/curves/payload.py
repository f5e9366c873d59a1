"""Ready answers of growing size, from the near-cache and from Redis, against a bare method.

An artifact of so many random bytes. The load is h2load's, so that a server is the limit. What Redis
itself needs for an answer is its main thread's processor time while the API reads each from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from redis.asyncio import Redis

from ..hand import hand_worker
from ..harness import Bench, Figure, Measure
from ..load import Endpoint, grpc_endpoint, require_h2load, saturate
from ..pipelines import BLOB, LIGHT
from ..processes import start_api, start_server
from ..ready import GET, call, get_request
from ..results import Line
from .curve import Curve, repeats, trace
from .redis_cost import spent

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_TIME, _FLOW = "µs per answer", "MB/s"


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    async with hand_worker(url) as hand:
        for size in _SIZES:
            await hand.start(f"blob-{size}", BLOB, {"size": size})
            await hand.finish(await hand.claim())
    (_, near), (_, far) = await asyncio.gather(
        start_api(bench, url, **LIGHT), start_api(bench, url, **LIGHT, NEAR_CACHE_MB="0")
    )
    seconds = bench.pick(quick=0.5, full=1.5)
    ours: dict[float, list[float]] = {size: [] for size in _SIZES}
    measures: list[Measure] = []
    for size in _SIZES:
        request = get_request(f"blob-{size}")
        answer = await call(near, GET, request)
        file = bench.work / f"{size}.bin"
        file.write_bytes(answer)
        _, bare = await start_server(bench, "bare", str(file))
        endpoint = grpc_endpoint(bench.work, near, GET, request, answer)
        uncached = grpc_endpoint(bench.work, far, GET, request, answer)
        method = grpc_endpoint(bench.work, bare, "bench.Bare/Answer", request, answer)
        measures += [
            partial(_took, endpoint, seconds),
            partial(_counted, redis, uncached, seconds, ours[size]),
            partial(_took, method, seconds),
        ]
    took = await bench.alternate(*measures, repeats=repeats(bench))
    lines = []
    names = ("near-cache", "read from Redis", "bare grpc.aio, a constant")
    for first, name in enumerate(names):
        samples = dict(zip(map(float, _SIZES), took[first::3], strict=True))
        lines += trace(name, _TIME, samples)
        rates = {size: [size / one for one in times] for size, times in samples.items()}
        lines += trace(name, _FLOW, rates)
    return lines + trace("… of it Redis's own processor time", _TIME, ours)


async def _took(endpoint: Endpoint, seconds: float) -> float:
    return 1e6 / await saturate(endpoint, seconds)


async def _counted(
    redis: Redis, endpoint: Endpoint, seconds: float, processor: list[float]
) -> float:
    """As `_took`; notes what Redis's main thread used for each answer."""
    before = await spent(redis)
    took = await _took(endpoint, seconds)
    used = await spent(redis) - before
    processor.append(used.processor / max(used.reads, 1))
    return took


CURVE = Curve(
    Figure("payload", "Ready answers, by their size", measure, needs=require_h2load),
    "bytes of the artifact",
)
