"""What a start costs when many jobs wait before it, and what a worker's part of one costs.

The queue is filled through the real scripts. A depth is that before a repetition, which adds a
hundred jobs; small ones are filled anew for each. Start must stay O(log n).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count

import grpc
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb

from ..hand import HandWorker, hand_worker
from ..harness import Bench, Figure
from ..pipelines import LIGHT, NOOP
from ..processes import start_api
from ..ready import SERVICE, Unary, unary
from ..results import Line, Series, at_most, percentile
from .curve import Curve, part, repeats, trace
from .fill import NO_LIMIT, filler
from .redis_cost import spent

_SIZES = (0, 100, 1_000, 10_000, 100_000)
_WARM_UP, _STARTS, _JOBS = 20, 100, 40
_BASE, _DEEP = 100, 100_000
_US, _MS = "µs in Redis", "ms, p50, through gRPC"


async def measure(bench: Bench) -> Sequence[Line]:
    starts: dict[float, list[float]] = {size: [] for size in _SIZES}
    claims: dict[float, list[float]] = {size: [] for size in _SIZES}
    ends: dict[float, list[float]] = {size: [] for size in _SIZES}
    latencies: dict[float, list[float]] = {size: [] for size in _SIZES}
    for size in _SIZES:
        again = 1 if size > _DEEP / 100 else repeats(bench)
        for _ in range(again):
            async with part(bench, len(_SIZES) * again) as here:
                url = await here.valkey()
                redis = await here.redis(url)
                _, address = await start_api(here, url, **LIGHT, MAX_CACHED_RESULTS=str(NO_LIMIT))
                hand = await here.stack.enter_async_context(hand_worker(url, NO_LIMIT))
                fill = await here.stack.enter_async_context(filler(redis, url))
                channel = await here.stack.enter_async_context(grpc.aio.insecure_channel(address))
                start = unary(channel, f"{SERVICE}/StartPrecompute")
                numbers = count()
                await _start(
                    redis, start, numbers, _WARM_UP
                )  # connections are made, scripts are known
                for _ in range(_WARM_UP):
                    await hand.finish(await hand.claim())
                await fill.fill(size, finish=False, tick=here.tick)
                for _ in range(repeats(bench) if again == 1 else 1):
                    cost, latency = await _start(redis, start, numbers, _STARTS)
                    starts[size].append(cost)
                    latencies[size].append(latency)
                    claim, end = await _work(redis, hand)
                    claims[size].append(claim)
                    ends[size].append(end)
    return [
        *trace("start", _US, starts),
        *trace("claim (worker)", _US, claims),
        *trace("commits of a one-step run (worker)", _US, ends),
        *trace("StartPrecompute", _MS, latencies),
        Line(
            f"start behind {_DEEP:,} jobs, against {_BASE}",
            "µs",
            Series(f"{_DEEP:,}", starts[_DEEP]),
            Series(f"{_BASE}", starts[_BASE]),
            at_most(2),
        ),
    ]


async def _start(redis: Redis, start: Unary, numbers: count[int], many: int) -> tuple[float, float]:
    """Redis's time for a start, and a caller's."""
    spec = pb.CustomSpec(pipeline=NOOP.name)
    before = await spent(redis)
    took = []
    for number in (next(numbers) for _ in range(many)):
        request = pb.StartPrecomputeRequest(key=f"timed-{number:07}", custom=spec)
        began = time.perf_counter()
        await start(request.SerializeToString())
        took.append(time.perf_counter() - began)
    return (await spent(redis) - before).per_call(many), percentile(took, 50) * 1000


async def _work(redis: Redis, hand: HandWorker) -> tuple[float, float]:
    """Redis's time for claiming a job, and for all that its run then writes."""
    before = await spent(redis)
    claimed = [await hand.claim() for _ in range(_JOBS)]
    between = await spent(redis)
    for claim in claimed:
        await hand.finish(claim)
    after = await spent(redis)
    return (between - before).per_call(_JOBS), (after - between).per_call(_JOBS)


CURVE = Curve(Figure("queue", "Starting behind a queue", measure), "jobs that wait")
