"""Large runs: what their readers cost readers of small runs, and their watchers in memory."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc

from headstart.v1 import precompute_pb2 as pb
from headstart_service.values.limits import Limits

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..pipelines import BLOB, LIGHT
from ..processes import clean_environment, running, start_api
from ..results import Line, Series, at_most
from .reads import read_milliseconds, reader

_MEGABYTE = 1_000_000
_READERS = 12
_LARGE = 24 * _MEGABYTE
_WATCHED = 8 * _MEGABYTE
_SETTINGS = LIGHT | {"NEAR_CACHE_MB": "0"}
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.use_local_subchannel_pool", 1),
]


async def _beside(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        for key, size in (("small", 18_000), *((f"large-{n}", _LARGE) for n in range(_READERS))):
            await hand.start(key, BLOB, {"size": size})
            await hand.finish(await hand.claim(), Limits(artifact=_LARGE + 1000))
    _, address = await start_api(bench, url, **_SETTINGS)
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    small = reader(channel, "small")
    keys = [f"large-{number}" for number in range(_READERS)]
    seconds = bench.pick(quick=2, full=5)
    answers: list[str] = []
    codes: Counter[str] = Counter()
    hungry = [sys.executable, "-m", "benchmarks.limits.hungry", address, *keys]

    async def beside() -> float:
        async with running(hungry, bench.work, clean_environment()) as readers:
            await readers.says(r"\n")
            took = await read_milliseconds(small, seconds, codes)
        answers.extend(readers.output.split())
        return took

    async def alone() -> float:
        return await read_milliseconds(small, seconds)

    loaded, quiet = await bench.alternate(beside, alone, repeats=3)
    read = sum(answer.isdigit() for answer in answers)
    title = f"a small read, p99, beside {_READERS} readers of {_LARGE // _MEGABYTE} MB"
    return [
        Line(
            title,
            "ms",
            Series("beside them", loaded),
            Series("alone", quiet),
            note=f"{read} large answers, {len(answers) - read} refusals",
        ),
        Line(
            "small reads beside them that were refused",
            "calls",
            Series("beside them", [float(codes.total() - codes["OK"])]),
            target=at_most(0),
            note=f"of {codes.total()}",
        ),
    ]


async def _watchers(bench: Bench) -> Sequence[Line]:
    number = round(bench.pick(quick=100, full=300))
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.start("watched", BLOB, {"size": _WATCHED})
        process, address = await start_api(bench, url, **_SETTINGS)
        before = process.resident_mb()
        peak = before
        channels = [
            await bench.stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=[*_OPTIONS, ("limits", place)])
            )
            for place in range(10)
        ]
        waiting = asyncio.Event()
        got: list[int] = []
        refused: list[str] = []

        async def watch(place: int, *, reads: bool) -> None:
            method: Any = channels[place % len(channels)].unary_stream(
                "/headstart.v1.PrecomputeService/WatchResults"
            )
            call = method(pb.WatchResultsRequest(key="watched").SerializeToString())
            await call.read()
            waiting_for.release()
            if not reads:
                await waiting.wait()
                call.cancel()
                return
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    got.append(len(message))
            except grpc.aio.AioRpcError as error:
                refused.append(error.code().name)

        waiting_for = asyncio.Semaphore(0)
        # Every tenth one reads nothing.
        readers = [asyncio.create_task(watch(n, reads=n % 10 != 0)) for n in range(number)]
        for _ in range(number):
            await waiting_for.acquire()

        async def look() -> None:
            nonlocal peak
            while True:
                peak = max(peak, process.resident_mb())
                await asyncio.sleep(0.02)

        looking = asyncio.create_task(look())
        await hand.finish(await hand.claim())
        await asyncio.wait([task for place, task in enumerate(readers) if place % 10], timeout=120)
        waiting.set()
        await asyncio.wait(readers, timeout=30)
        looking.cancel()
        await process.idle()
        after = process.resident_mb()
    large = sum(size > _WATCHED for size in got)
    return [
        Line(
            f"memory of {number} watchers of a run of {_WATCHED // _MEGABYTE} MB, at most",
            "MB",
            Series("more than at rest", [peak - before]),
            target=at_most(400),
            note=f"{large} got it, {len(refused)} were refused, every tenth read nothing",
        ),
        Line("the same, when they have gone", "MB", Series("more than at rest", [after - before])),
    ]


BESIDE = Figure("beside", "Small reads beside large ones", _beside)
WATCHERS = Figure("watchers", "Watchers of a large run", _watchers)
