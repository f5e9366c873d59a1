"""What an announcement costs when ever more API processes hear it.

Every API process hears every announcement. Listeners here are bare subscriptions, read by a task
that throws away what it reads: Redis cannot tell the difference. An API process's part is measured
on a real one, which is told of runs that nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import API
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules

from ..hand import hand_worker
from ..harness import OURS, Bench, Figure
from ..pipelines import LIGHT
from ..processes import start_api
from ..results import Line, Series
from .curve import Curve, part, repeats, trace
from .redis_cost import spent

_SIZES = (1, 10, 100, 300)
_MESSAGE = b"ended 1 - default:run-00000000"
_BATCH = 100
_CHANNEL = "benchmark:listened"
_US, _BYTES = "µs of Redis's processor per announcement", "bytes sent per announcement"


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    redis = await bench.redis(url)
    number = round(bench.pick(quick=500, full=2000))
    costs: dict[float, list[float]] = {}
    sent: dict[float, list[float]] = {}
    for size in _SIZES:
        async with AsyncExitStack() as stack:
            await _listen(stack, url, size)
            for _ in range(repeats(bench)):
                cost, size_sent = await _publish(redis, _CHANNEL, number)
                costs.setdefault(size, []).append(cost)
                sent.setdefault(size, []).append(size_sent)
        bench.tick(0.9 / len(_SIZES))
    heard: list[float] = []
    async with part(bench, 10) as here:
        api, _ = await start_api(here, url, **LIGHT)
        for _ in range(repeats(bench)):
            await api.idle()
            before = api.used_seconds()
            await _publish(redis, PartitionKeys(0).events, number * 5)
            await api.idle()
            heard.append((api.used_seconds() - before) * 1e6 / (number * 5))
    return [
        *trace("publishing to them all", _US, costs),
        *trace("publishing to them all", _BYTES, sent),
        Line(
            "an API process hears one that concerns nobody",
            "µs of its processor",
            Series("", heard),
        ),
        *await _game(bench, url, redis),
        await _check(bench, url, redis),
    ]


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
    rules = StoreRules(partitions=1, max_records=1000, failure_ttl=60)
    costs = []
    async with redis_client(f"{url}?{OURS}", API) as client:
        store = RedisStore(client, rules, budget=10, connections=API.connections)
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
    return int(memory["used_memory"]), int(stats["cmdstat_publish"]["calls"])


async def _listen(stack: AsyncExitStack, url: str, number: int) -> None:
    """Subscribe so many, and read what they are sent."""
    for _ in range(number):
        client: Redis = await stack.enter_async_context(Redis.from_url(url, protocol=2))
        pubsub = await stack.enter_async_context(client.pubsub())
        await pubsub.subscribe(_CHANNEL)
        await pubsub.get_message(timeout=5)
        task = asyncio.create_task(_drain(pubsub))
        stack.push_async_callback(asyncio.wait, [task])
        stack.callback(task.cancel)


async def _drain(pubsub: PubSub) -> None:
    while True:
        await pubsub.get_message(timeout=None)


async def _publish(redis: Redis, channel: str, number: int) -> tuple[float, float]:
    """Redis's processor time, and the bytes that it sent, for each of so many."""
    before, sent = await spent(redis), await _sent(redis)
    for _ in range(number // _BATCH):
        pipeline = redis.pipeline(transaction=False)
        for _ in range(_BATCH):
            pipeline.publish(channel, _MESSAGE)
        await pipeline.execute()
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)  # until all of it has been sent
    used = await spent(redis) - before
    return used.processor / number, (await _sent(redis) - sent) / number


async def _sent(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_net_output_bytes"])


CURVE = Curve(Figure("announcements", "An announcement, by who hears it", measure), "API processes")
