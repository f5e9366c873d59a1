"""Measures what a step gives before it ends: how late each token is, and what it costs Redis.

  calm      one stream of 40 tokens a second: from the yield to the watcher, beside a unary call;
            and how soon a cancel closes the generator
  crowd     many streams of 20 tokens a second: the same, Redis's time for a token, and its writes
  killed    as many streams, while an API process and a worker are killed (kill -9): tokens that
            are lost or doubled; a step that begins anew must say so

Exit codes are those of `python -m benchmarks`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from headstart import PrecomputeClient

from .curves.redis_cost import spent
from .harness import Bench, Figure
from .processes import start_api, start_worker
from .program import run
from .results import Line, Series, at_most, percentile
from .streams_watched import STREAM_STEP, Watched, watch, watch_through_kills

_SETTINGS = {
    "BRIDGING": "false",
    "PIPELINES": "benchmarks.pipelines:STREAM",
    "LEASE": "2",
    "LOG_LEVEL": "error",
}
_CALM_PAUSE, _CROWD_PAUSE = 0.025, 0.05
_SLOW_PAUSE = 0.4
_PLACES = 1000
"""Runs that a worker has at once."""


async def _calls(client: PrecomputeClient, key: str, number: int) -> list[float]:
    """Milliseconds that each of so many unary calls takes."""
    took = []
    for _ in range(number):
        began = time.monotonic()
        await client.get_status(key)
        took.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(_CALM_PAUSE)
    return took


async def _calm(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    _, address = await start_api(bench, url, **_SETTINGS)
    await start_worker(bench, url, **_SETTINGS)
    client = await bench.stack.enter_async_context(PrecomputeClient(address))
    tokens = 80
    late, calls, beyond = [], [], []
    for repetition in range(bench.repeats):
        key, watched = f"calm-{repetition}", Watched()
        await client.start(key, "stream", {"tokens": tokens, "pause": _CALM_PAUSE})
        _, took = await asyncio.gather(
            watch(client, key, tokens, watched), _calls(client, key, tokens // 2)
        )
        late.append(percentile(watched.late, 50))
        calls.append(percentile(took, 50))
        beyond.append(late[-1] - calls[-1])
        bench.tick(1 / bench.repeats)
    closing = [await _cancel(bench, client, repetition) for repetition in range(bench.repeats)]
    ours = Series("token → watcher", late)
    return [
        Line("Token → watcher, p50", "ms", ours, Series("a unary call", calls)),
        Line("Token → watcher, beyond a call", "ms", Series("p50", beyond), None, at_most(3)),
        Line("Cancel → generator closed", "ms", Series("", closing), None, at_most(100)),
    ]


async def _cancel(bench: Bench, client: PrecomputeClient, number: int) -> float:
    """Milliseconds from a cancel until the generator in the worker is closed."""
    key, closed = f"cancel-{number}", bench.work / f"closed-{number}"
    await client.start(key, "stream", {"tokens": 100, "pause": 1.0, "closed": str(closed)})
    async with aclosing(client.stream(key, STREAM_STEP)) as pieces:
        await anext(pieces)
        began = time.monotonic()
        await client.cancel(key)
    while not closed.exists() or not closed.read_text():  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.01)
    return (float(closed.read_text()) - began) * 1000


async def _crowd(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    _, address = await start_api(bench, url, **_SETTINGS)
    await start_worker(bench, url, **_SETTINGS, WORKER_CONCURRENCY=str(_PLACES))
    client = await bench.stack.enter_async_context(PrecomputeClient(address))
    redis = await bench.redis(url)
    streams, tokens = round(bench.pick(quick=50, full=100)), 100
    p50, p99, cost, writes = [], [], [], []
    for repetition in range(bench.repeats):
        watched = Watched()
        keys = [f"crowd-{repetition}-{number}" for number in range(streams)]
        before = await spent(redis)
        published = await _calls_of(redis, "spublish")
        for key in keys:
            await client.start(key, "stream", {"tokens": tokens, "pause": _CROWD_PAUSE})
        await asyncio.gather(*(watch(client, key, tokens, watched) for key in keys))
        used = await spent(redis) - before
        p50.append(percentile(watched.late, 50))
        p99.append(percentile(watched.late, 99))
        cost.append(used.processor / watched.tokens)
        writes.append((await _calls_of(redis, "spublish") - published) / watched.tokens)
        bench.tick(1 / bench.repeats)
    title = f"{streams} streams"
    return [
        Line(f"Token → watcher, {title}, p50", "ms", Series("p50", p50)),
        Line(f"Token → watcher, {title}, p99", "ms", Series("p99", p99)),
        Line(f"Redis's processor, {title}", "µs/token", Series("all commands", cost)),
        Line(f"Announcements, {title}", "a token", Series("published", writes)),
    ]


async def _calls_of(redis: object, command: str) -> int:
    stats = await redis.info("commandstats")  # type: ignore[attr-defined]
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def _killed(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    apis = [await start_api(bench, url, **_SETTINGS) for _ in range(2)]
    places = {"WORKER_CONCURRENCY": str(_PLACES)}
    workers = [await start_worker(bench, url, **_SETTINGS, **places) for _ in range(2)]
    target = "ipv4:" + ",".join(address for _, address in apis)
    client = await bench.stack.enter_async_context(PrecomputeClient(target, timeout=30))
    streams, tokens = round(bench.pick(quick=200, full=1000)), 60
    kills = [partial(os.kill, process.pid, signal.SIGKILL) for process in (apis[0][0], workers[0])]
    keys = [f"killed-{number}" for number in range(streams)]
    watched = await watch_through_kills(client, keys, tokens, _SLOW_PAUSE, kills)
    title = f"{streams} streams, kill -9 of an API and a worker"
    return [
        Line(f"Tokens lost or doubled, {title}", "", Series("", [watched.wrong]), None, at_most(0)),
        Line(f"Restarts that were told, {title}", "", Series("", [watched.restarts])),
    ]


FIGURES = (
    Figure("calm", "One stream", _calm),
    Figure("crowd", "Many streams", _crowd),
    Figure("killed", "Streams through kill -9", _killed),
)

if __name__ == "__main__":
    sys.exit(
        run(
            "python -m benchmarks.streaming",
            __doc__ or "",
            FIGURES,
            Path("build/benchmarks-streaming"),
        )
    )
