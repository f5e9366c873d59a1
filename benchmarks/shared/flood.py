"""What 10,000 runs of one namespace do to another that starts one run at a time.

The light namespace's p99 from a start to its result is measured alone, then behind the flood: one
that nobody waits for, one that restarts a thousand keys, and one with a waiting caller for each
run. It may be one and a half times that alone, plus one service time, because every slot may just
have begun a run of the flood.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from headstart.v1 import precompute_pb2 as pb

from ..curves.curve import part
from ..harness import Bench, Figure
from ..processes import start_api, start_worker
from ..ready import SERVICE as METHODS
from ..ready import unary
from ..results import Line, Series, at_most, percentile
from .pipelines import ONLY, SERVICE

_RUNS, _BATCH = 10_000, 500
_KEYS = 1000
"""Those over which one of the floods is sharded: each is started ten times."""
_SLOTS = 4
"""With them the flood lasts for four minutes, longer than a repetition."""
_FACTOR = 1.5
_PATIENCE = 10.0
"""Seconds after which a run counts as if it had come now."""
_FEW = 60
"""Runs beside the flood that is shorter than the others."""
_GIVEN_UP = 3
"""So many of these runs show enough."""


async def measure(bench: Bench) -> Sequence[Line]:
    repeats, runs = (2, 60) if bench.quick else (3, 150)
    alone, unwaited, sharded, waited = (list[float]() for _ in range(4))
    for _ in range(repeats):
        async with part(bench, repeats) as here, _service(here) as channel:
            alone.append(await _p99(channel, runs, "alone"))
            here.tick(0.2)
            for _ in range(_RUNS // _KEYS):
                await _flood(channel, _KEYS, restart=True)
            sharded.append(await _p99(channel, _FEW, "sharded"))
            here.tick(0.2)
            await _flood(channel, _RUNS)
            unwaited.append(await _p99(channel, runs, "unwaited"))
            here.tick(0.3)
            await _flood(channel, _RUNS, wait=True)
            waited.append(await _p99(channel, runs, "waited"))
            here.tick(0.3)
    bounds = [(_FACTOR * seconds + SERVICE) * 1000 for seconds in alone]
    bound = Series("1.5 times alone and a service time", bounds)
    return [
        Line("p99 alone", "ms", Series("light", [s * 1000 for s in alone])),
        _line("not waited for", unwaited, bound),
        _line("not waited for, over a thousand keys", sharded, bound),
        _line("waited for", waited, bound),
    ]


def _line(flood: str, seconds: Sequence[float], bound: Series) -> Line:
    title = f"p99 beside {_RUNS:,} runs, {flood}"
    return Line(title, "ms", Series("light", [s * 1000 for s in seconds]), bound, at_most(1))


@asynccontextmanager
async def _service(here: Bench) -> AsyncIterator[grpc.aio.Channel]:
    url = await here.valkey()
    room = {"MAX_CACHED_RESULTS": "100000"}
    _, address = await start_api(here, url, **ONLY, **room)
    await start_worker(here, url, **ONLY, WORKER_CONCURRENCY=str(_SLOTS))
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


def _start(namespace: str, key: str, *, restart: bool = False) -> pb.StartPrecomputeRequest:
    spec = pb.CustomSpec(pipeline="pause")
    return pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec, restart=restart)


async def _flood(
    channel: grpc.aio.Channel, runs: int, *, wait: bool = False, restart: bool = False
) -> None:
    """Start the flood; with `wait`, a caller has begun to wait for each of its runs."""
    start = unary(channel, f"{METHODS}/BatchStartPrecomputes")
    get = unary(channel, f"{METHODS}/BatchGetResults")
    for first in range(0, runs, _BATCH):
        keys = [f"{first + number:05}" for number in range(_BATCH)]
        starts = [_start("flood", key, restart=restart) for key in keys]
        batch = pb.BatchStartPrecomputesRequest(requests=starts)
        await start(batch.SerializeToString())
        if wait:
            results = pb.BatchGetResultsRequest(namespace="flood", keys=keys)
            results.wait.FromMilliseconds(100)
            await get(results.SerializeToString())


async def _p99(channel: grpc.aio.Channel, runs: int, name: str) -> float:
    """The light namespace's p99 from a start to the result, in seconds, of runs one by one."""
    start = unary(channel, f"{METHODS}/StartPrecompute")
    get = unary(channel, f"{METHODS}/GetResults")
    took: list[float] = []
    while len(took) < runs and sum(seconds >= _PATIENCE for seconds in took) < _GIVEN_UP:
        key = f"{name}-{len(took)}"
        began = time.monotonic()
        await start(_start("light", key).SerializeToString())
        request = pb.GetResultsRequest(namespace="light", key=key)
        request.wait.FromNanoseconds(round(_PATIENCE * 1e9))
        answer = pb.GetResultsResponse.FromString(await get(request.SerializeToString()))
        done = answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
        took.append(time.monotonic() - began if done else _PATIENCE)
    return percentile(took, 99)


FLOOD = Figure("flood", "A light namespace beside another's flood", measure)
