"""What calls cost when ever more runs are kept, and the memory of each.

The records are those of a pipeline of one step that gives a number, all of them ended; the limit
is raised, and the append-only file of a Valkey of our own is off: it is commands that are measured,
not the disk. Reading goes past the near-cache. A start "when full" makes room by evicting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

import grpc
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import RunKey
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import WORKER
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules

from ..harness import OURS, Bench, Figure
from ..pipelines import LIGHT, NOOP
from ..processes import start_api
from ..ready import GET, SERVICE, get_request, unary
from ..results import Line, Series, percentile
from .curve import Curve, repeats, trace
from .fill import NO_LIMIT, Filler, filler
from .redis_cost import spent

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_CALLS, _PAGES, _LONG_PAGES = 100, 20, 5
_STRIDE = 7919
"""A prime, so that keys are read from all over."""
_US, _MS = "µs in Redis", "ms, p50, through gRPC"
_STEADY = 0.5
Samples = dict[tuple[str, str], dict[float, list[float]]]


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    if bench.redis_url is None:
        await redis.config_set("appendonly", "no")
    settings = {**LIGHT, "NEAR_CACHE_MB": "0", "MAX_CACHED_RESULTS": str(NO_LIMIT)}
    _, address = await start_api(bench, url, **settings)
    fill = await bench.stack.enter_async_context(filler(redis, url))
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    sizes = _SIZES[:-1] if bench.quick else _SIZES
    empty = await _used(redis)
    samples: Samples = {}
    rates: list[float] = []
    for size in sizes:
        began, had = time.monotonic(), fill.count
        await fill.fill(size, finish=True, tick=partial(_tick, bench, (size - had) / sizes[-1]))
        rates.append((size - had) / (time.monotonic() - began))
        kept = (await _used(redis) - empty) / await redis.dbsize()
        samples.setdefault(("a record", "bytes in Redis"), {})[size] = [kept]
        for _ in range(repeats(bench)):
            await _sample(redis, channel, range(had, size), samples)
        # After all reading: what was read is evicted first.
        for _ in range(repeats(bench)):
            cost = await _evicting(redis, url, time.monotonic_ns())
            samples.setdefault(("start when full", _US), {}).setdefault(size, []).append(cost)
    lines = [line for (title, unit), found in samples.items() for line in trace(title, unit, found)]
    return [*lines, Line("filling, all scripts of each run", "runs/s", Series("", rates))]


def _tick(bench: Bench, share: float, done: float) -> None:
    bench.tick(share * done)


async def _sample(redis: Redis, channel: grpc.aio.Channel, fresh: range, samples: Samples) -> None:
    """One sample of each call; what is read was filled since the last size."""
    size = fresh.stop
    numbers = count(time.monotonic_ns())
    start, get = unary(channel, f"{SERVICE}/StartPrecompute"), unary(channel, GET)
    listing, stats = (unary(channel, f"{SERVICE}/{m}") for m in ("ListPrecomputes", "GetStats"))

    async def start_one() -> None:
        spec = pb.CustomSpec(pipeline=NOOP.name)
        request = pb.StartPrecomputeRequest(key=f"timed-{next(numbers)}", custom=spec)
        await start(request.SerializeToString())

    async def read_one() -> None:
        number = fresh[next(numbers) * _STRIDE % len(fresh)]
        await get(get_request(Filler.key(number), wait=0))

    async def list_one() -> None:
        await listing(pb.ListPrecomputesRequest().SerializeToString())

    async def list_many() -> None:
        # An API process gives up on Redis after 250 ms; what it cost Redis counts all the same.
        with suppress(grpc.aio.AioRpcError):
            await listing(pb.ListPrecomputesRequest(page_size=1000).SerializeToString())

    async def count_all() -> None:
        await stats(pb.GetStatsRequest().SerializeToString())

    calls: Sequence[tuple[str, Callable[[], Awaitable[None]], int]] = (
        ("start", start_one, _CALLS),
        ("read", read_one, _CALLS),
        ("list, a page of 100", list_one, _PAGES),
        ("list, a page of 1,000", list_many, _LONG_PAGES),
        ("stats", count_all, _PAGES),
    )
    for title, one, many in calls:
        await one()
        cost, latency = await _timed(redis, one, many)
        samples.setdefault((title, _US), {}).setdefault(size, []).append(cost)
        samples.setdefault((title, _MS), {}).setdefault(size, []).append(latency)


async def _timed(
    redis: Redis, one: Callable[[], Awaitable[None]], many: int
) -> tuple[float, float]:
    """Redis's time for a call, and a caller's."""
    before = await spent(redis)
    took = []
    for _ in range(many):
        began = time.perf_counter()
        await one()
        took.append(time.perf_counter() - began)
    return (await spent(redis) - before).per_call(many), percentile(took, 50) * 1000


async def _evicting(redis: Redis, url: str, first: int) -> float:
    """Redis's time for a start that must evict: the limit is what is kept now."""
    rules = StoreRules(partitions=1, max_records=NO_LIMIT, failure_ttl=60)
    async with redis_client(f"{url}?{OURS}", WORKER) as client:
        store = RedisStore(client, rules, budget=10, connections=1)
        kept = sum((await store.stats("")).counts.values())
        rules = StoreRules(partitions=1, max_records=kept, failure_ttl=60)
        store = RedisStore(client, rules, budget=10, connections=1)
        plan = NOOP.plan({}, "inputs")
        before = await spent(redis)
        for number in range(first, first + _CALLS):
            key = RunKey("default", f"evicting-{number}")
            await store.start(key, plan, 1800.0, restart=False)
        return (await spent(redis) - before).per_call(_CALLS)


async def _used(redis: Redis) -> int:
    await asyncio.sleep(_STEADY)  # what a command needed while it ran is given back
    return int((await redis.info("memory"))["used_memory"])


CURVE = Curve(Figure("keys", "Calls, by how many runs are kept", measure), "runs kept")
