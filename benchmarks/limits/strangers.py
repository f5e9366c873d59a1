"""Callers without a token: large bodies, and streams of health."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headstart.v1 import precompute_pb2 as pb

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..pipelines import BLOB, LIGHT
from ..processes import start_api
from ..ready import Unary, unary
from ..results import Line, Series, at_most
from .reads import read_milliseconds, reader, repeated

_STRANGERS = 8
_BODY = 3_800_000
_TOKEN = "hst_" + "limits" * 8  # of the benchmark's own server
_START = "headstart.v1.PrecomputeService/StartPrecompute"


async def _tokenless(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.start("small", BLOB, {"size": 18_000})
        await hand.finish(await hand.claim())
    tokens = bench.work / "tokens"
    tokens.write_text(f"bench sha256:{hashlib.sha256(_TOKEN.encode()).hexdigest()} * read\n")
    _, address = await start_api(bench, url, **LIGHT, TOKENS=str(tokens))
    request = pb.StartPrecomputeRequest(key="k")
    while request.ByteSize() < _BODY:
        for _ in range(20_000):
            request.custom.inputs.fields[f"k{len(request.custom.inputs.fields)}"].number_value = 1
    body = request.SerializeToString()
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        await bench.stack.enter_async_context(grpc.aio.insecure_channel(address, options=own))
        for _ in range(_STRANGERS + 1)
    ]
    metadata = (("authorization", f"Bearer {_TOKEN}"),)
    ready = reader(channels[0], "small", metadata)
    starts: list[Unary] = [unary(channel, _START) for channel in channels[1:]]
    calls = [partial(start, body) for start in starts]
    seconds = bench.pick(quick=2, full=5)

    async def flooded() -> float:
        async with repeated(*calls) as codes:
            took = await read_milliseconds(ready, seconds)
        assert set(codes) <= {"UNAUTHENTICATED"}, set(codes)
        return took

    async def alone() -> float:
        return await read_milliseconds(ready, seconds)

    loaded, quiet = await bench.alternate(flooded, alone, repeats=3)
    title = f"a ready read, p99, beside {_STRANGERS} callers without a token that send 3.8 MB"
    return [Line(title, "ms", Series("beside them", loaded), Series("alone", quiet))]


async def _health(bench: Bench) -> Sequence[Line]:
    number = round(bench.pick(quick=2_500, full=10_000))
    url = await bench.valkey()
    process, address = await start_api(bench, url, **LIGHT)
    before = process.resident_mb()
    admitted = 0
    streams = []
    for place in range(25):
        own = [("grpc.use_local_subchannel_pool", 1), ("limits", place)]
        channel = await bench.stack.enter_async_context(
            grpc.aio.insecure_channel(address, options=own)
        )
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        streams += [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(number // 25)]
    for first in range(0, len(streams), 500):
        for answer in await asyncio.gather(
            *(stream.read() for stream in streams[first : first + 500]), return_exceptions=True
        ):
            admitted += isinstance(answer, health_pb2.HealthCheckResponse)
    await process.idle()
    more = process.resident_mb() - before
    for stream in streams:
        stream.cancel()
    return [
        Line(
            f"memory of {number:,} streams of Health.Watch",
            "MB",
            Series("more than at rest", [more]),
            target=at_most(80),
            note=f"{admitted:,} were admitted",
        )
    ]


TOKENLESS = Figure("tokenless", "Large requests without a token", _tokenless)
HEALTH = Figure("health", "Streams of health", _health)
