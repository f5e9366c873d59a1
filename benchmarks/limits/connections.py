"""More HTTP connections that send half a request than the process may open files."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from contextlib import suppress

import grpc

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..pipelines import BLOB, LIGHT
from ..processes import start_api
from ..results import Line, Series
from .reads import read_milliseconds, reader

_FILES = 1024
_CONNECTIONS = 1100


async def _connections(bench: Bench) -> Sequence[Line]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.start("small", BLOB, {"size": 18_000})
        await hand.finish(await hand.claim())
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))  # the process inherits it
    try:
        process, address = await start_api(bench, url, **LIGHT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * _CONNECTIONS), hard))
    host, port = (await process.says(r"HTTP on (\S+)")).rsplit(":", 1)
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    read = reader(channel, "small")

    async def probe() -> float:
        began = time.monotonic()
        source, sink = await asyncio.open_connection(host, port)
        sink.write(b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"200 OK" in await source.readline()
        sink.close()
        return (time.monotonic() - began) * 1e3

    async def probes() -> list[float]:
        return [await probe() for _ in range(20)]

    quiet, quiet_read = await probes(), await read_milliseconds(read, 2)
    held = []
    for _ in range(_CONNECTIONS):
        _, sink = await asyncio.open_connection(host, port)
        with suppress(OSError):
            sink.write(b"GET /readyz HT")
        held.append(sink)
    loaded, loaded_read = await probes(), await read_milliseconds(read, 2)
    for sink in held:
        sink.close()
    beside = f"beside {_CONNECTIONS:,} connections with half a request, of {_FILES:,} files"
    return [
        Line(f"a probe {beside}", "ms", Series("beside them", loaded), Series("alone", quiet)),
        Line(
            f"a ready read, p99, {beside}",
            "ms",
            Series("beside them", [loaded_read]),
            Series("alone", [quiet_read]),
        ),
    ]


CONNECTIONS = Figure("connections", "Connections that send half a request", _connections)
