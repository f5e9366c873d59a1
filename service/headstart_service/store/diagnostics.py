"""Examine a store for its operator: version, latency, clock, memory rules, workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.exceptions import NoPermissionError, ResponseError

from ..domain.errors import StoreUnavailable
from .connect import AWAY, Client, check_version
from .keys import GROUP, PartitionKeys
from .layout import stored_layout
from .refusals import reason_of
from .store_rules import StoreRules

_TRIPS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """The facts of one examination. Durations in seconds."""

    version: str
    latency: float
    """Of the median trip there and back."""
    clock_ahead: float
    """How far the store's clock is ahead of this machine's; behind when negative."""
    clock_error: float
    """The most by which that may be wrong."""
    eviction: str
    """`maxmemory_policy`, empty if the store does not report it."""
    memory_limit: int
    """Bytes; 0 means none."""
    memory_used: int
    """Bytes."""
    append_only: bool | None
    """None if the store does not report it."""
    workers: int
    """Workers that have requested jobs recently."""
    queued: int
    """Jobs that no worker has taken."""
    layout: str
    """How the store is laid out, as `layout.Layout` reads it; empty before its first process."""


async def examine(
    client: Client, rules: StoreRules, *, recent: float, clock: Callable[[], float] = time.time
) -> StoreFacts:
    """Return a store's facts; workers count if they requested jobs within `recent` seconds.

    Raises StoreUnavailable when it does not answer, StartupError when it is too old.
    """
    version = await check_version(client)
    try:
        trips, aheads = [], []
        for _ in range(_TRIPS):
            sent = clock()
            seconds, micros = await _clock(client)
            received = clock()
            trips.append(received - sent)
            aheads.append(seconds + micros / 1e6 - (sent + received) / 2)
        best = min(range(_TRIPS), key=trips.__getitem__)
        info = await _info(client)
        workers: set[bytes] = set()
        queued = 0
        for keys in rules.keys(client):
            active, waiting = await _queue(client, keys, recent)
            workers |= active
            queued += waiting
        layout = await stored_layout(client, rules.prefix)
    except AWAY as error:
        raise StoreUnavailable(reason_of(error)) from error
    enabled = info.get("aof_enabled")
    return StoreFacts(
        version=version,
        latency=median(trips),
        clock_ahead=aheads[best],
        clock_error=trips[best] / 2,
        eviction=str(info.get("maxmemory_policy", "")),
        memory_limit=int(info.get("maxmemory", 0)),
        memory_used=int(info.get("used_memory", 0)),
        append_only=None if enabled is None else bool(int(enabled)),
        workers=len(workers),
        queued=queued,
        layout=layout or "",
    )


async def _clock(client: Client) -> tuple[int, int]:
    if isinstance(client, RedisCluster):
        reply: Any = await client.time(target_nodes=RedisCluster.RANDOM)
        if isinstance(reply, dict):
            reply = next(iter(reply.values()))
    else:
        reply = await client.time()
    return int(reply[0]), int(reply[1])


async def _info(client: Client) -> Mapping[str, Any]:
    """Return the needed sections of INFO; of a cluster those of one node."""
    merged: dict[str, Any] = {}
    for section in ("memory", "persistence"):
        info: Any = await client.info(section)
        if isinstance(client, RedisCluster) and isinstance(next(iter(info.values()), 0), dict):
            info = next(iter(info.values()))
        merged |= info
    return merged


async def _queue(client: Client, keys: PartitionKeys, recent: float) -> tuple[set[bytes], int]:
    """Return the names of the workers that ask for jobs, and how many jobs wait."""
    try:
        consumers = await client.xinfo_consumers(keys.jobs, GROUP)
        groups = await client.xinfo_groups(keys.jobs)
    except NoPermissionError:
        raise
    except ResponseError:  # neither a job nor a worker has been there yet
        return set(), 0
    active = {each["name"] for each in consumers if each["idle"] < recent * 1000}
    lags = [each.get("lag") for each in groups if each["name"] == GROUP.encode()]
    return active, sum(int(lag or 0) for lag in lags)
