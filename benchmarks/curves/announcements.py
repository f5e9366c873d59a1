"""What a game costs Redis when there are ever more API processes.

One process reads each game and waits for its end; it alone receives the game's announcements. The
others are bare subscriptions, each to the channels of a process of its own, read by a task that
throws away what it reads: Redis sees no difference. An API process's part is measured on a real
one, which is sent announcements of runs that nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from headstart_service.domain import Awaits, RunKey
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import API
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules

from ..hand import HandWorker, hand_worker
from ..harness import OURS, Bench, Figure
from ..pipelines import LIGHT
from ..processes import start_api
from ..results import Line, Series
from .curve import Curve, part, repeats, trace
from .redis_cost import spent

_SIZES = (1, 10, 100, 300)
_MESSAGE = "ended 1 - default:run-00000000"
_BATCH = 100
_RULES = StoreRules(partitions=1, max_records=100_000, failure_ttl=60)
_US, _BYTES = "µs of Redis's processor per game", "bytes that Redis sends per game"


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    costs: dict[float, list[float]] = {size: [] for size in _SIZES}
    sent: dict[float, list[float]] = {size: [] for size in _SIZES}
    names = (f"{number:08}" for number in count())
    async with hand_worker(url) as hand, redis_client(f"{url}?{OURS}", API) as client:
        reader = RedisStore(client, _RULES, budget=10, connections=API.connections)
        await _waited_games(redis, hand, reader, [next(names) for _ in range(_BATCH)])
        for repetition in range(repeats(bench)):
            for size in _SIZES if repetition % 2 else reversed(_SIZES):
                async with AsyncExitStack() as stack:
                    await _subscribe(stack, url, reader.channels)
                    for _ in range(size - 1):
                        other = RedisStore(client, _RULES, budget=10, connections=1)
                        await _subscribe(stack, url, other.channels)
                    games = [next(names) for _ in range(_BATCH)]
                    cost, size_sent = await _waited_games(redis, hand, reader, games)
                costs[size].append(cost)
                sent[size].append(size_sent)
                bench.tick(0.9 / len(_SIZES) / repeats(bench))
    received: list[float] = []
    async with part(bench, 10) as here:
        api, _ = await start_api(here, url, **LIGHT)
        found: list[Any] = await redis.pubsub_shardchannels(f"{PartitionKeys(0).events}:*")
        [channel] = [name.decode() for name in found if not name.endswith(b":resets")]
        number = round(bench.pick(quick=2500, full=10_000))
        for _ in range(repeats(bench)):
            await api.idle()
            before = api.used_seconds()
            await _publish(redis, channel, number)
            await api.idle()
            received.append((api.used_seconds() - before) * 1e6 / number)
    return [
        *trace("a game for which one process waits", _US, costs),
        *trace("a game for which one process waits", _BYTES, sent),
        Line(
            "an API process receives one announcement",
            "µs of its processor",
            Series("", received),
        ),
        *await _game(bench, url, redis),
        await _check(bench, url, redis),
    ]


async def _waited_games(
    redis: Redis, hand: HandWorker, reader: RedisStore, names: Sequence[str]
) -> tuple[float, float]:
    """Redis's processor time and the bytes that it sends for each game, from its start on."""
    before, sent = await spent(redis), await _sent(redis)
    for name in names:
        await hand.start_game(name)
        await reader.read(RunKey("default", name), awaits=Awaits.END)
        await hand.finish(await hand.claim())
    used = (await spent(redis) - before).processor
    return used / len(names), (await _sent(redis) - sent) / len(names)


async def _game(bench: Bench, url: str, redis: Redis) -> list[Line]:
    """What a whole game against Haiku is to Redis: nobody listens, and nobody reads it."""
    costs, announced, kept = [], [], []
    async with hand_worker(url) as hand:
        await hand.keep_games([f"warm-{number:04}" for number in range(_BATCH)])
        for repetition in range(repeats(bench)):
            before, memory, published = await spent(redis), *await _counts(redis)
            await hand.keep_games([f"{repetition}-{number:06}" for number in range(_BATCH)])
            after, memory_after, published_after = await spent(redis), *await _counts(redis)
            costs.append((after - before).processor / _BATCH)
            announced.append((published_after - published) / _BATCH)
            kept.append((memory_after - memory) / _BATCH)
    return [
        Line("a game, from its start to its end", "µs of Redis's processor", Series("", costs)),
        Line("a game, from its start to its end", "announcements", Series("", announced)),
        Line("a game that is kept", "bytes in Redis", Series("", kept)),
    ]


async def _check(bench: Bench, url: str, redis: Redis) -> Line:
    """What it costs Redis that an API process asks, twice a second, whether it is there."""
    costs = []
    async with redis_client(f"{url}?{OURS}", API) as client:
        store = RedisStore(client, _RULES, budget=10, connections=API.connections)
        await store.ping()
        for _ in range(repeats(bench)):
            before = await spent(redis)
            for _ in range(_BATCH):
                await store.ping()
            costs.append((await spent(redis) - before).processor / _BATCH)
    return Line("a readiness check of a partition", "µs of Redis's processor", Series("", costs))


async def _counts(redis: Redis) -> tuple[int, int]:
    """Memory that is used, and announcements that were made."""
    memory = await redis.info("memory")
    stats = await redis.info("commandstats")
    return int(memory["used_memory"]), int(stats["cmdstat_spublish"]["calls"])


async def _subscribe(stack: AsyncExitStack, url: str, channels: Sequence[str]) -> None:
    """Subscribe as a process does, and read what it is sent."""
    client: Redis = await stack.enter_async_context(Redis.from_url(url, protocol=2))
    pubsub = await stack.enter_async_context(client.pubsub())
    await pubsub.ssubscribe(*channels)
    await pubsub.get_message(timeout=5)
    task = asyncio.create_task(_drain(pubsub))
    stack.push_async_callback(asyncio.wait, [task])
    stack.callback(task.cancel)


async def _drain(pubsub: PubSub) -> None:
    while True:
        await pubsub.get_message(timeout=None)


async def _publish(redis: Redis, channel: str, number: int) -> None:
    for _ in range(number // _BATCH):
        pipeline = redis.pipeline(transaction=False)
        for _ in range(_BATCH):
            pipeline.execute_command("SPUBLISH", channel, _MESSAGE)
        await pipeline.execute()


async def _sent(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_net_output_bytes"])


CURVE = Curve(
    Figure("announcements", "A game, by the number of API processes", measure), "API processes"
)
