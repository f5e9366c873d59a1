"""Many runs in one call: starts and ready results a second of one API process, and a page of 40.

One client in this process sends batches, some at once; a ready result is a game of 18 kB that the
near-cache keeps. The bounds are numbers, not ratios, because no other server takes such a batch;
`make bench-peers` has what the peers start and read one by one. The page of 40 results is compared
with one result in the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

import grpc

from headstart.v1 import precompute_pb2 as pb

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..pipelines import NOOP
from ..processes import start_api
from ..ready import GET, SERVICE, Unary, get_request, unary
from ..results import Line, Series, at_least, at_most, percentile

_ITEMS = 500
_PAGE = 40
_AT_ONCE = 4
_KEPT = "1000000"
"""By default a thousand runs are kept, and then starts are refused."""
_RECEIVED = 64 * 1024 * 1024
_PIPELINES = "benchmarks.pipelines:NOOP"


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    keys = [f"game-{number:04}" for number in range(_ITEMS)]
    async with hand_worker(url) as hand:
        await hand.keep_games(keys)
    _, address = await start_api(
        bench, url, MAX_CACHED_RESULTS=_KEPT, MAX_QUEUED=_KEPT, PIPELINES=_PIPELINES
    )
    options = [("grpc.max_receive_message_length", _RECEIVED)]
    channel = await bench.stack.enter_async_context(
        grpc.aio.insecure_channel(address, options=options)
    )
    start = unary(channel, f"{SERVICE}/BatchStartPrecomputes")
    get = unary(channel, f"{SERVICE}/BatchGetResults")
    one = unary(channel, GET)
    numbers = count()
    calls = round(bench.pick(quick=8, full=40))
    looks = round(bench.pick(quick=40, full=200))
    everything = pb.BatchGetResultsRequest(keys=keys).SerializeToString()
    page = pb.BatchGetResultsRequest(keys=keys[:_PAGE]).SerializeToString()
    answer = pb.BatchGetResultsResponse.FromString(await get(everything))
    sizes = [result.response.ByteSize() for result in answer.results]

    async def starts() -> float:
        requests = [_starts(numbers) for _ in range(calls)]
        return await _rate(start, requests)

    async def reads() -> float:
        return await _rate(get, [everything] * calls)

    async def pages() -> float:
        return await _p50(get, page, looks)

    async def singles() -> float:
        return await _p50(one, get_request(keys[0]), looks)

    started, read, paged, single = await bench.alternate(starts, reads, pages, singles)
    return [
        Line("starts in batches", "starts/s", Series("Headstart", started), None, at_least(10_000)),
        Line(
            "ready results in batches, near-cache",
            "results/s",
            Series("Headstart", read),
            None,
            at_least(20_000),
            f"{sum(sizes) / len(sizes) / 1000:.1f} kB a result",
        ),
        Line(
            f"a page of {_PAGE} ready results, p50",
            "ms",
            Series("one call", paged),
            Series("a call for one result", single),
            at_most(3),
        ),
    ]


async def _rate(call: Unary, requests: Sequence[bytes]) -> float:
    """Items a second, with some batches at once."""
    left = iter(requests)

    async def keep_calling() -> None:
        for request in left:
            await call(request)

    began = time.perf_counter()
    await asyncio.gather(*(keep_calling() for _ in range(_AT_ONCE)))
    return len(requests) * _ITEMS / (time.perf_counter() - began)


async def _p50(call: Unary, request: bytes, number: int) -> float:
    took = []
    for _ in range(number):
        began = time.perf_counter()
        await call(request)
        took.append(time.perf_counter() - began)
    return percentile(took, 50) * 1000


def _starts(numbers: count[int]) -> bytes:
    requests = []
    for _ in range(_ITEMS):
        number = next(numbers)
        spec = pb.CustomSpec(pipeline=NOOP.name, inputs_json=f'{{"value": {number}}}')
        requests.append(pb.StartPrecomputeRequest(key=f"run-{number}", custom=spec))
    return pb.BatchStartPrecomputesRequest(requests=requests).SerializeToString()


FIGURE = Figure("batches", "Many runs in one call", measure)
