"""Measures how long after a step's end a web page has its result, in a real Chromium.

The page is of another origin. It watches runs with the official Connect client, by the server
stream of WatchResults. A worker notes the time at which the step ends; the page notes the time at
which it has the message. Beside it stands a Python client that watches over gRPC.

Needs what `make test-browser` and `make test-languages` install. Exit codes are those of
`python -m benchmarks`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import grpc

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from tests.support.connect_page import connect_page

from .harness import Bench, Figure, Unavailable
from .pipelines import LIGHT, STAMP
from .processes import start_api, start_worker
from .program import run
from .results import Line, Series, at_most, percentile

_SCRIPT = """async ([url, key, binary]) => {
    let last = null;
    await headstart.watch(url, key, binary, (note) => { last = note; });
    return [last.at, last.stamp];
}"""


def _needs() -> None:
    try:
        import playwright.async_api as _  # noqa: F401
    except ImportError as error:
        raise Unavailable("playwright is missing: run make test-browser") from error
    if shutil.which("chromium") is None:
        raise Unavailable("Chromium is missing: run make test-browser")


async def measure(bench: Bench) -> Sequence[Line]:
    from playwright.async_api import async_playwright

    url = await bench.valkey()
    origin = bench.stack.enter_context(connect_page())
    (api, address), _ = await asyncio.gather(
        start_api(bench, url, **LIGHT, CORS_ORIGINS=origin), start_worker(bench, url, **LIGHT)
    )
    http = f"http://127.0.0.1:{await api.says(r'HTTP on [^ ]+:([0-9]+)')}"
    channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
    stub: Any = pb_grpc.PrecomputeServiceStub(channel)
    keys = (f"run-{number}" for number in count())
    number = round(bench.pick(quick=40, full=200))
    epoch = time.time() - time.monotonic()
    browsers = await bench.stack.enter_async_context(async_playwright())
    browser = await browsers.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
    )
    page = await browser.new_page()
    await page.goto(origin)

    async def started(key: str) -> None:
        spec = pb.CustomSpec(pipeline=STAMP.name)
        request = pb.StartPrecomputeRequest(key=key, custom=spec, restart=True)
        await stub.StartPrecompute(request, timeout=10)

    async def in_page(*, binary: bool) -> float:
        took = []
        for _ in range(number):
            key = next(keys)
            await started(key)
            at, stamp = await page.evaluate(_SCRIPT, [http, key, binary])
            took.append(at / 1000 - epoch - stamp)
        return percentile(took, 50) * 1000

    async def by_grpc() -> float:
        took = []
        for _ in range(number):
            key = next(keys)
            await started(key)
            async for message in stub.WatchResults(pb.WatchResultsRequest(key=key)):
                now, results = time.monotonic(), message.results
            took.append(now - _stamp(results))
        return percentile(took, 50) * 1000

    json, proto, direct = await bench.alternate(
        lambda: in_page(binary=False), lambda: in_page(binary=True), by_grpc, repeats=5
    )
    await browser.close()
    over_grpc = Series("Python over gRPC", direct)
    note = "worker, API and Chromium share this machine"
    name = "step's end → page of another origin, p50"
    return [
        Line(f"{name}, JSON", "ms", Series("Chromium", json), None, at_most(10), note),
        Line(f"{name}, protobuf", "ms", Series("Chromium", proto), None, at_most(10), note),
        Line("step's end → Python client, p50", "ms", over_grpc, None, None, note),
    ]


def _stamp(results: pb.GetResultsResponse) -> float:
    stamp: float = json.loads(results.custom.artifacts["stamp"].json)
    return stamp


FIGURE = Figure("browser", "From a step's end to a web page", measure, _needs)

if __name__ == "__main__":
    program = "python -m benchmarks.browser"
    sys.exit(run(program, __doc__ or "", [FIGURE], Path("build/browser")))
