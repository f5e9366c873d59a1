"""What a call costs, counted instead of timed: the same on every machine, however busy it is.

`python -m benchmarks.invariants` shows the counts; tests/integration/test_cost_invariants.py holds
them. Commands are counted where they arrive: Redis shows every one that a client sends, apart from
those that its own scripts run. What names a run is that run's; the rest is upkeep.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import grpc
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.store.scripts import SOURCES

from .hand import HandWorker, hand_worker
from .harness import Bench
from .pipelines import LIGHT, NOOP, SHAPE
from .processes import Process, start_api, start_worker
from .ready import GET, SERVICE, Unary, get_request, unary

_CALLS = 20
_WAITERS = 100
_SEEN = 0.1
"""Seconds after which Redis has shown every command that was answered."""
_UPKEEP = frozenset({"CLIENT", "EVALSHA", "EVAL", "SCRIPT", "XREADGROUP", "XAUTOCLAIM", "PING"})
HEAVY = (
    *(
        "numpy",
        "onnxruntime",
        "torch",
        "sentence_transformers",
        "transformers",
        "anthropic",
        "wordfreq",
    ),
    *("opentelemetry.sdk.trace", "opentelemetry.exporter"),
)


@dataclass(frozen=True)
class Costs:
    """The counts. "Commands" are round trips to Redis for one call, or run: the usual number."""

    start: float
    """Commands for a start."""
    miss: float
    """Commands for a ready result that is not in the near-cache."""
    hit: float
    """Commands for one that is."""
    run: float
    """Commands of a worker for a run of one step, apart from asking for jobs."""
    game: float
    """The same for a run with the steps of a game against a person."""
    job_requests: float
    """Times that a worker asks for jobs, for each run that it gets."""
    wait: float
    """Commands for a call that waits for a run's end."""
    wake_up: float
    """Commands at the end of a run for which a hundred wait, for all of them together."""
    unexpected: frozenset[str]
    """Commands that no one should send."""
    api_connections: int
    """To Redis, of an API process that has served all of this."""
    worker_connections: int
    answer_bytes: int
    """Of a ready game against Haiku."""
    number_bytes: int
    """Of the numbers in it, as float32 and double."""
    heavy_modules: frozenset[str]
    """Packages of the worker that an API process has loaded."""
    modules: int
    """Modules of others that an API process has loaded."""


class Commands:
    """What clients sent to Redis since `clear`."""

    def __init__(self, scripts: Mapping[str, str]) -> None:
        """Know scripts by their digests."""
        self._scripts = scripts
        self.names: Counter[str] = Counter()
        """How often each command was sent."""
        self.scripts: Counter[str] = Counter()
        """How often each script was sent."""
        self._about: Counter[tuple[str, str]] = Counter()

    def add(self, command: str) -> None:
        """Count one, as Redis shows it."""
        name, *arguments = command.split(" ")
        self.names[name.upper()] += 1
        script = self._scripts.get(arguments[0], name) if arguments else name
        self.scripts[script] += 1
        for argument in arguments:
            if ":run:default:" in argument:
                self._about[argument.rpartition(":")[2], script] += 1

    def clear(self) -> None:
        """Begin anew."""
        self.names.clear()
        self.scripts.clear()
        self._about.clear()

    def usual(self, keys: Sequence[str], *scripts: str) -> float:
        """How often these scripts (none: any command) are usually sent for one of these runs.

        The median: a command that a busy machine made time out is sent again.
        """
        counts = [
            sum(
                n
                for (of, name), n in self._about.items()
                if of == key and (not scripts or name in scripts)
            )
            for key in keys
        ]
        return statistics.median(counts)


@asynccontextmanager
async def commands_of(redis: Redis) -> AsyncIterator[Commands]:
    """See every command that a client sends from now on."""
    commands = Commands({redis.register_script(text).sha: name for name, text in SOURCES.items()})
    async with redis.monitor() as monitor:

        async def watch() -> None:
            while True:
                said: Any = await monitor.next_command()
                if said["client_type"] != "lua":
                    commands.add(said["command"])

        task = asyncio.create_task(watch())
        try:
            yield commands
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def measure_costs(work: Path) -> Costs:
    """Start what is needed, and count."""
    bench = Bench(quick=True, work=work, redis_url=None, tick=lambda _: None)
    async with bench.stack:
        url = await bench.valkey()
        redis = await bench.redis(url)
        hand = await bench.stack.enter_async_context(hand_worker(url))
        api, address = await start_api(bench, url, **LIGHT)
        channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
        get, start = unary(channel, GET), unary(channel, f"{SERVICE}/StartPrecompute")
        commands = await bench.stack.enter_async_context(commands_of(redis))
        keys, miss, hit = await _reading(get, hand, commands)
        wake_up = await _waking(get, hand, api, commands)
        api_connections = await _connections(redis)
        await start_worker(bench, url, **LIGHT)
        shaped = await _running(get, start, commands, SHAPE)
        game = _of_worker(commands, shaped)
        running = await _running(get, start, commands, NOOP)
        answer = await get(get_request(keys[0]))
        modules = _modules()
        return Costs(
            start=commands.usual(running, "start"),
            miss=miss,
            hit=hit,
            run=_of_worker(commands, running),
            game=game,
            job_requests=commands.names["XREADGROUP"] / len(running),
            wait=commands.usual(running, "read", "status"),
            wake_up=wake_up,
            unexpected=frozenset(commands.names) - _UPKEEP,
            api_connections=api_connections,
            worker_connections=await _connections(redis) - api_connections,
            answer_bytes=len(answer),
            number_bytes=_number_bytes(pb.GetResultsResponse.FromString(answer)),
            heavy_modules=frozenset(HEAVY) & modules,
            modules=sum(not name.startswith("headstart") for name in modules),
        )


async def _reading(
    get: Unary, hand: HandWorker, commands: Commands
) -> tuple[Sequence[str], float, float]:
    """The keys of ready games, and what reading one costs the first time, and then."""
    keys = [f"ready-{number}" for number in range(_CALLS)]
    await hand.keep_games(keys)

    async def read() -> float:
        await _settled(commands)
        for key in keys:
            await get(get_request(key))
        await asyncio.sleep(_SEEN)
        return commands.usual(keys)

    return keys, await read(), await read()


async def _waking(get: Unary, hand: HandWorker, api: Process, commands: Commands) -> float:
    key = "awaited"
    await hand.start(key, NOOP, {})
    claim = await hand.claim()
    waiting = [asyncio.ensure_future(get(get_request(key, 60))) for _ in range(_WAITERS)]
    await api.idle()
    await _settled(commands)
    await hand.finish(claim)
    await asyncio.gather(*waiting)
    await asyncio.sleep(_SEEN)
    return commands.usual([key], "read", "status")


def _of_worker(commands: Commands, keys: Sequence[str]) -> float:
    """How many commands a worker usually sends for one of these runs, its claim among them."""
    # A claim names no run: the script picks it.
    claims = round(commands.scripts["claim"] / len(keys))
    return claims + commands.usual(keys, "commit", "renew", "release")


async def _running(
    get: Unary, start: Unary, commands: Commands, pipeline: Pipeline
) -> Sequence[str]:
    """Do some runs, one after the other; gives their keys."""
    keys = [f"{pipeline.name}-{number}" for number in range(_CALLS)]
    await _settled(commands)
    for key in keys:
        spec = pb.CustomSpec(pipeline=pipeline.name)
        await start(pb.StartPrecomputeRequest(key=key, custom=spec).SerializeToString())
        answer = pb.GetResultsResponse.FromString(await get(get_request(key, 10)))
        if answer.status != pb.PRECOMPUTE_STATUS_COMPLETED:
            raise RuntimeError(f"{key} has not ended:\n{answer}")
    await asyncio.sleep(_SEEN)
    return keys


async def _settled(commands: Commands) -> None:
    """Forget what was seen, once what is under way has been."""
    await asyncio.sleep(_SEEN)
    commands.clear()


async def _connections(redis: Redis) -> int:
    """Those that are not the benchmark's own."""
    return sum(client["name"] != "benchmark" for client in await redis.client_list())


def _number_bytes(answer: pb.GetResultsResponse) -> int:
    bridging = answer.bridging
    vectors = [*bridging.haiku_embeddings, *bridging.lexical_embeddings]
    single = len(bridging.anchor_embedding) + len(bridging.target_embedding)
    return 4 * (single + sum(len(v.values) for v in vectors)) + 8 * len(bridging.null_samples)


def _modules() -> frozenset[str]:
    """What `headstart serve` imports, counted in an interpreter of its own."""
    program = (
        "import sys, headstart_service.commands.cli, headstart_service.commands.server, "
        "headstart_service.processes.api; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return frozenset(done.stdout.decode().split())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as work:
        costs = asyncio.run(measure_costs(Path(work)))
    for field in fields(costs):
        value = getattr(costs, field.name)
        shown = ", ".join(sorted(value)) or "none" if isinstance(value, frozenset) else value
        print(f"{field.name:20} {shown}")


if __name__ == "__main__":
    main()
