"""What spreading runs over partitions gives and takes, on one Valkey and on a cluster of three.

One API process with the near-cache off. Sixteen callers, each an h2load with a run of its own, so
that every partition is used: a start starts the same run anew, a read reads its record. Where Redis
is not the limit, more partitions give nothing; the processor time that Redis needs for a start says
how many starts a second its busiest master could do (when it is full), were there enough API
processes to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import count

from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import RunKey
from headstart_service.store.keys import partition_of

from ..harness import OURS, Bench, Figure, Unavailable
from ..load import Endpoint, grpc_endpoint, require_h2load, saturate
from ..pipelines import LIGHT, NOOP
from ..processes import start_api
from ..ready import GET, SERVICE, call, get_request
from ..results import Line
from .curve import Curve, part, repeats, trace
from .redis_cost import spent

_SIZES = (1, 2, 4, 8, 16)
_CALLERS = 16
_OURS = OURS.partition("=")[2]
_CONNECTED = ("one Valkey", "cluster of three")
_US = "µs of processor time per start"
Samples = dict[tuple[str, str], dict[float, list[float]]]


async def measure(bench: Bench) -> Sequence[Line]:
    try:
        from tests.support.deployments import cluster, standalone
    except ImportError as error:
        raise Unavailable(f"{error.name} is missing: pip install '.[embedded]'") from error
    samples: Samples = {}
    for name, deployment in zip(_CONNECTED, (standalone, cluster), strict=True):
        async with part(bench, 1) as here:
            servers = here.stack.enter_context(deployment(here.work / "servers"))
            masters = [await here.redis(url) for url in servers.masters]
            for size in _SIZES:
                async with part(bench, len(_SIZES) * len(_CONNECTED)) as one:
                    await _measure_one(one, servers.url, masters, name, size, samples)
                for master in masters:
                    await master.flushall()
    return [line for (title, unit), found in samples.items() for line in trace(title, unit, found)]


async def _measure_one(
    bench: Bench, url: str, masters: Sequence[Redis], name: str, size: int, samples: Samples
) -> None:
    settings = {**LIGHT, "PARTITIONS": str(size), "NEAR_CACHE_MB": "0"}
    api, address = await start_api(bench, url, **settings)
    starts: list[Endpoint] = []
    reads: list[Endpoint] = []
    for key in _spread(size):
        request = pb.StartPrecomputeRequest(
            key=key, custom=pb.CustomSpec(pipeline=NOOP.name), restart=True
        ).SerializeToString()
        method = f"{SERVICE}/StartPrecompute"
        started = await call(address, method, request)
        starts.append(grpc_endpoint(bench.work, address, method, request, started))
        answer = await call(address, GET, get_request(key, wait=0))
        reads.append(grpc_endpoint(bench.work, address, GET, get_request(key, wait=0), answer))
    seconds = bench.pick(quick=0.5, full=1.5)
    costs: list[float] = []
    ours: list[float] = []
    busiest: list[float] = []

    async def start() -> float:
        before = [await spent(master) for master in masters]
        had = api.used_seconds()
        rate = await _load(starts, seconds)
        own = api.used_seconds() - had
        used = [await spent(m) - b for m, b in zip(masters, before, strict=True)]
        calls = max(sum(each.jobs for each in used), 1)
        ours.append(1e6 * own / calls)
        costs.append(sum(each.processor for each in used) / calls)
        busiest.append(1e6 * calls / max(each.processor for each in used))
        return rate

    started_a_second, read_a_second = await bench.alternate(
        start, partial(_load, reads, seconds), repeats=repeats(bench)
    )
    connections = 0
    for master in masters:
        connections += sum(c["name"] != _OURS for c in await master.client_list())
    found: dict[tuple[str, str], list[float]] = {
        (f"starts, {name}", "calls/s of one API process"): started_a_second,
        (f"reads, {name}", "calls/s of one API process"): read_a_second,
        (f"all masters, {name}", _US): costs[1:],
        (f"API process, {name}", _US): ours[1:],
        (name, "starts/s, a master full"): busiest[1:],
    }
    found[name, "Redis connections"] = [connections]
    for place, values in found.items():
        samples.setdefault(place, {})[size] = values


def _spread(partitions: int) -> list[str]:
    """Names that are dealt to the partitions in turn."""
    keys = (f"run-{number}" for number in count())
    wanted = [number % partitions for number in range(_CALLERS)]
    return [
        next(key for key in keys if partition_of(RunKey("default", key), partitions) == partition)
        for partition in wanted
    ]


async def _load(endpoints: Sequence[Endpoint], seconds: float) -> float:
    """Calls a second of all callers together."""
    rates = await asyncio.gather(*(saturate(each, seconds, 1, 2) for each in endpoints))
    return sum(rates)


CURVE = Curve(
    Figure("partitions", "One API process, by partitions", measure, needs=require_h2load),
    "partitions",
)
