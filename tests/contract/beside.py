"""What the tests of sets and hashes beside the records share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from headstart_service.domain import (
    Announcement,
    RunKey,
)
from headstart_service.store.keys import PartitionKeys
from tests.contract.backend import TTL, Backend, plan

KEY = RunKey("games", "game-1")
SECOND = 1_000_000
HOUR = 3600 * SECOND


def now_us() -> int:
    """The server's time, which is this machine's, in microseconds."""
    return time.time_ns() // 1000


def name_of(key: RunKey) -> str:
    return f"{key.namespace}:{key.key}"


def beside(keys: PartitionKeys, name: str) -> str:
    """A partition's key of this name."""
    return keys.jobs.removesuffix("jobs") + name


def entry_of(key: RunKey, score: float) -> tuple[str, int]:
    """A run's entry in the order of its set, and its band; spelled once more so that a slip shows."""
    band = 0 if score < 0 else 1 if score < 2**52 else 2
    namespace = key.namespace.replace(":", ";")
    return f"{namespace}:{band}{score + (1 - band) * 2**52:016.0f}{key.key}", band


async def stand(backend: Backend, key: RunKey, score: int, among: str = "waiting") -> None:
    """Put a pending run into a set, with this score, whatever it had."""
    where = beside(backend.keys_of(key), among)
    old = await backend.redis("ZSCORE", where, name_of(key))
    if old is not None:
        await backend.redis("ZREM", f"{where}:order", entry_of(key, float(old))[0])
    entry, band = entry_of(key, score)
    await backend.redis("ZADD", where, score, name_of(key))
    await backend.redis("ZADD", f"{where}:order", 0, entry)
    await backend.redis("ZADD", f"{where}:turns:{band}", "NX", 0, key.namespace)


async def sweep(backend: Backend, keys: PartitionKeys) -> list[int]:
    """What sweep.lua returns: expired, more, broken."""
    reply: list[int] = await backend.scripts.sweep(keys, None)
    return reply


async def next_of(heard: AsyncIterator[Announcement], *kinds: str, member: str = "") -> str:
    """The kind of the next announcement of these; in a cluster earlier ones may be on their way."""
    async with asyncio.timeout(10):
        async for announcement in heard:
            if announcement.kind in kinds and member in ("", name_of(announcement.key)):
                return announcement.kind
    raise AssertionError("nothing was announced")


async def start_all(backend: Backend, keys: list[RunKey]) -> None:
    store = backend.new_store(max_records=2000 * backend.partitions)
    await asyncio.gather(*(store.start(key, plan(), TTL, restart=False) for key in keys))
    await store.aclose()
