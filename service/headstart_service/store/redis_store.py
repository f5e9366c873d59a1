"""The store as the API uses it: start, read, cancel, list and count runs in Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import OutOfMemoryError, ResponseError

from ..domain import (
    Cancelled,
    Outcome,
    RunKey,
    RunPlan,
    RunSummary,
    Snapshot,
    Started,
    Stats,
    Status,
    StepState,
)
from ..errors import CapacityExhausted, RunNotFound, StartupError, StoreUnavailable
from .connect import AWAY, Client
from .keys import PartitionKeys, from_member, partition_of
from .scripts import Reply, Scripts

log = logging.getLogger(__name__)

_GRACE = 0.02
"""Seconds that a reply has, behind its budget, to be seen by a loop that was busy."""
LIVE_PATIENCE = 30 * 60.0
"""Seconds that a run which has not ended is kept at least: without a worker, renewing nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """What the store enforces. Durations in seconds."""

    partitions: int
    max_records: int
    """Over all partitions; each holds its share of them."""
    failure_ttl: float

    def __post_init__(self) -> None:
        if self.max_records < self.partitions:
            raise StartupError(
                f"HEADSTART_MAX_CACHED_RESULTS: {self.max_records} results cannot be shared out "
                f"among {self.partitions} partitions (HEADSTART_PARTITIONS)"
            )

    def share(self, partition: int) -> int:
        """How many of the records a partition holds at most; all shares make the whole."""
        return self.max_records // self.partitions + (
            partition < self.max_records % self.partitions
        )


@dataclass(slots=True)
class _Reach:
    """Whether a partition's server answers."""

    failures: int = 0
    away: bool = False
    """Whether the last call failed."""


class RedisStore:
    """Runs in Redis. Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(
        self, client: Client, rules: StoreRules, *, budget: float, connections: int
    ) -> None:
        """Give up on Redis `budget` seconds after a call's turn has come."""
        self._client = client
        self._scripts = Scripts(client)
        self._rules = rules
        self._budget = budget
        self._turn = asyncio.Semaphore(connections)
        self._partitions = [PartitionKeys(p) for p in range(rules.partitions)]
        self._reach = [_Reach() for _ in self._partitions]

    async def ping(self) -> None:
        """Return if every partition can be read and written."""
        for keys in self._partitions:
            await self._call(keys, self._scripts.sweep(keys, None))

    async def start(self, key: RunKey, plan: RunPlan, ttl: float, *, restart: bool) -> Started:
        """Start, join or reuse the run. Raises CapacityExhausted when nothing can make room."""
        keys = self._keys(key)
        reply = await self._call(
            keys,
            self._scripts.start(
                keys,
                key,
                pipeline=plan.pipeline,
                digest=plan.digest,
                steps=",".join(f"{name}={digest}" for name, digest in plan.steps.items()),
                inputs=plan.inputs,
                ttl_us=round(ttl * 1e6),
                patience_us=round(LIVE_PATIENCE * 1e6),
                restart=int(restart),
                max_records=self._rules.share(keys.partition),
            ),
        )
        if reply[0] == b"full":
            raise CapacityExhausted(
                f"all {self._rules.max_records} places are held by runs that have not ended", 1.0
            )
        return Started(Outcome(reply[0].decode()), Status(reply[1].decode()), int(reply[2]))

    async def read(self, key: RunKey) -> Snapshot:
        """The run with all its results, which counts as reading them. Raises RunNotFound."""
        return await self._read(key, "read")

    async def status(self, key: RunKey) -> Snapshot:
        """The run without its results: `body` is empty. Raises RunNotFound."""
        return await self._read(key, "status")

    async def cancel(self, key: RunKey) -> Cancelled:
        """End the run if it has not ended. Raises RunNotFound."""
        ttl_us = round(self._rules.failure_ttl * 1e6)
        keys = self._keys(key)
        reply = await self._call(keys, self._scripts.cancel(keys, key, failure_ttl_us=ttl_us))
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        return Cancelled(bool(reply[0]), Status(reply[1].decode()), int(reply[2]))

    async def list(
        self, namespace: str, statuses: Sequence[Status], after: RunKey | None, limit: int
    ) -> list[RunSummary]:
        """Up to `limit` runs behind `after`, by partition and name; no namespace means all."""
        page: list[RunSummary] = []
        first = partition_of(after, self._rules.partitions) if after else 0
        for keys in self._partitions[first:]:
            low, high = _range(namespace)
            if after and keys.partition == first and after.namespace >= namespace:
                low = f"({after.namespace}:{after.key}"
            missing = limit - len(page)
            wanted = [status.value for status in statuses]
            call = self._scripts.list(keys, None, *wanted, low=low, high=high, limit=missing)
            page.extend(_summary(row) for row in await self._call(keys, call))
            if len(page) >= limit:
                break
        return page

    async def stats(self, namespace: str) -> Stats:
        """How much is kept and queued; no namespace means all."""
        low, high = _range(namespace)
        counts = dict.fromkeys(Status, 0)
        queued = 0
        for keys in self._partitions:
            reply = await self._call(keys, self._scripts.stats(keys, None, low=low, high=high))
            queued += reply[-1]
            for name, count in zip(reply[:-1:2], reply[1:-1:2], strict=True):
                counts[Status(name.decode())] += count
        return Stats({status: count for status, count in counts.items() if count}, queued)

    def _keys(self, key: RunKey) -> PartitionKeys:
        return self._partitions[partition_of(key, self._rules.partitions)]

    async def _read(self, key: RunKey, mark: str) -> Snapshot:
        keys = self._keys(key)
        reply = await self._call(keys, self._scripts.read(keys, key, mark=mark))
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        status, revision, pipeline, steps, created, started, completed, expires, error, now = reply[
            :10
        ]
        summary = RunSummary(
            key=key,
            pipeline=pipeline.decode(),
            revision=int(revision),
            status=Status(status.decode()),
            created_us=int(created),
            started_us=int(started),
            completed_us=int(completed),
            expires_us=int(expires),
            error=error.decode(),
        )
        lives_for = (int(expires) - int(now)) / 1e6
        return Snapshot(summary, _states(steps, reply[10]), reply[11], lives_for)

    async def _call(self, keys: PartitionKeys, call: Coroutine[Any, Any, Reply]) -> Reply:
        reach = self._reach[keys.partition]
        failures = reach.failures
        try:
            async with self._turn:
                if reach.away and reach.failures > failures:
                    # Each in a queue asking a server that is away would wait for all before it.
                    raise StoreUnavailable("Redis does not answer, as others found out meanwhile")
                reply = await answered(call, self._budget)
        except StoreUnavailable:
            reach.failures += 1
            reach.away = True
            raise
        finally:
            call.close()  # it never began if this was cancelled or refused before its turn
        reach.away = False
        return reply


async def answered(call: Awaitable[Reply], budget: float) -> Reply:
    """The reply to `call`, or StoreUnavailable when there is none within `budget` seconds."""
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=budget)
        if not done:
            # On a busy machine the reply may be here, and only this loop too late to see it.
            done, _ = await asyncio.wait({task}, timeout=_GRACE)
        if not done:
            raise TimeoutError
        return task.result()
    except OutOfMemoryError as error:
        raise CapacityExhausted("the store's memory is full", 5.0) from error
    except AWAY as error:
        raise unavailable(error) from error
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen, even if this was cancelled before it could be raised


def unavailable(error: Exception) -> StoreUnavailable:
    """What callers are told of an error of `connect.AWAY`."""
    if isinstance(error, ResponseError):
        # It does answer, but not as it should: the operator needs the reason.
        log.warning("Redis refuses: %s", error)
    return StoreUnavailable(f"Redis does not answer: {type(error).__name__}")


def _states(steps: bytes, ended: bytes) -> Mapping[str, StepState]:
    """All steps of a run, in order, from "name=digest,…" and "name=letter,…"."""
    states = {item.partition("=")[0]: StepState.PENDING for item in steps.decode().split(",")}
    if ended:
        for item in ended.decode().split(","):
            name, _, letter = item.partition("=")
            states[name] = StepState(letter)
    return states


def _summary(row: Reply) -> RunSummary:
    status, name, revision, pipeline, created, started, completed, expires, error = row
    return RunSummary(
        key=from_member(name.decode()),
        pipeline=pipeline.decode(),
        revision=int(revision),
        status=Status(status.decode()),
        created_us=int(created),
        started_us=int(started),
        completed_us=int(completed),
        expires_us=int(expires),
        error=error.decode(),
    )


def _range(namespace: str) -> tuple[str, str]:
    """The lexicographic range of a namespace's members; ';' follows ':'."""
    return (f"[{namespace}:", f"({namespace};") if namespace else ("-", "+")
