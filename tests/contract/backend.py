"""The store under test on one deployment, and the few moves that most tests begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any

from headstart_service.domain import (
    Announcement,
    Claim,
    Job,
    Offer,
    RunKey,
    RunPlan,
    Snapshot,
    Status,
    StepRecord,
    StepState,
)
from headstart_service.domain.errors import RunNotFound
from headstart_service.store.batches import ScriptBatches
from headstart_service.store.connect import BLOCKING, WORKER, Client, Patience, open_client
from headstart_service.store.events import SILENCE, subscription
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.keys import DEFAULT_PREFIX, PartitionKeys, partition_of
from headstart_service.store.layout import StoreLayout
from headstart_service.store.records import NAMES
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.scripts import SOURCES, Scripts
from headstart_service.store.store_observer import StoreObserver
from headstart_service.store.store_rules import GONE_AFTER, StoreRules
from tests.support.deployments import Deployment

FAILURE_TTL = 60.0
TTL = 1800.0
BUDGET = 10.0
"""Generous, because a busy machine is no outage; tests of outages open their own."""


def plan(digest: str = "d1", steps: Mapping[str, str] | None = None) -> RunPlan:
    """A run of two steps."""
    return RunPlan("probe", b'{"value":1}', "v1", digest, steps or {"first": "f1", "second": "s1"})


OFFER = Offer("probe", "v1", {})
"""What workers of these tests run, unless they say."""


def done(name: str, result: bytes = b"") -> StepRecord:
    return StepRecord(name, StepState.COMPLETED, result or f"<{name}>".encode())


def running(name: str) -> StepRecord:
    return StepRecord(name, StepState.RUNNING, f"<{name} runs>".encode())


RESULT = b"<first><second>"


class Queue(RedisJobQueue):
    """The queue of workers that run what these tests start."""

    async def claim(
        self, job: Job, worker: str, offers: Sequence[Offer] = (OFFER,), *, alone: bool = True
    ) -> Claim | None:
        return await super().claim(job, worker, offers, alone=alone)


class Backend:
    """A store and a job queue on a deployment. `open` makes one."""

    def __init__(
        self,
        deployment: Deployment,
        partitions: int,
        stack: AsyncExitStack,
        prefix: str = DEFAULT_PREFIX,
        connect: float = BUDGET,
    ) -> None:
        self.deployment = deployment
        self.partitions = partitions
        self.prefix = prefix
        self._stack = stack
        self.raw = self.client(replace(WORKER, connect=connect))
        self.blocking = self.client(replace(BLOCKING, connect=connect))
        self.all_keys = self.rules().keys(self.raw)
        self.channels = [keys.events for keys in self.all_keys]
        batches = ScriptBatches(
            self.raw,
            SOURCES,
            budget=BUDGET,
            connections=3,
            layout=StoreLayout(self.raw, partitions, prefix),
        )
        stack.push_async_callback(batches.aclose)
        self.scripts = Scripts(batches)
        self.expected: dict[str, int] = {}
        """How long runs take, in microseconds by pipeline, as all stores and queues are given it."""
        self.costs: dict[str, int] = {}
        """How long runs have a slot, in the same way; empty means as long as they take."""
        self.weights: Mapping[str, float] = {}
        """The weights of namespaces, as all queues are given them."""
        self.store = self.new_store()
        self.queue = self.new_queue()

    @staticmethod
    @asynccontextmanager
    async def open(
        deployment: Deployment,
        partitions: int,
        prefix: str = DEFAULT_PREFIX,
        connect: float = BUDGET,
    ) -> AsyncIterator[Backend]:
        """Open clients that may take `connect` seconds to connect."""
        async with AsyncExitStack() as stack:
            yield Backend(deployment, partitions, stack, prefix, connect)

    def client(self, patience: Patience) -> Client:
        """A client that is closed after the test."""
        client = open_client(self.deployment.url, patience)
        self._stack.push_async_callback(client.aclose)
        return client

    def rules(self, max_records: int = 1000, **limits: int) -> StoreRules:
        return StoreRules(
            partitions=self.partitions,
            max_records=max_records,
            failure_ttl=FAILURE_TTL,
            prefix=self.prefix,
            **limits,
        )

    def new_store(self, max_records: int = 1000, **limits: int) -> RedisStore:
        rules = self.rules(max_records, **limits)
        return RedisStore(
            self.raw,
            rules,
            budget=BUDGET,
            connections=3,
            expected=lambda: self.expected,
        )

    def new_queue(
        self,
        lease: float = 60.0,
        *,
        budget: float = BUDGET,
        idle: float = GONE_AFTER,
        client: Client | None = None,
        observer: StoreObserver | None = None,
    ) -> Queue:
        """A queue on the backend's client, or on another."""
        return Queue(
            client or self.raw,
            self.blocking,
            self.rules(),
            lease=lease,
            budget=budget,
            idle=idle,
            observer=observer,
            expected=lambda: self.expected,
            costs=lambda: self.costs or self.expected,
            weights=lambda: self.weights,
        )

    # What a test may look at behind the store's back.

    def keys_of(self, key: RunKey) -> PartitionKeys:
        return self.all_keys[partition_of(key, self.partitions)]

    async def redis(self, *command: Any) -> Any:
        """Run a command by its name; its first argument is its key."""
        return await self.raw.execute_command(*command)

    async def record(self, key: RunKey) -> dict[bytes, bytes]:
        """The record's fields, with those of its line `about` among them."""
        return spread(await self.raw.hgetall(self.keys_of(key).record(key)))

    async def pttl(self, key: RunKey) -> float:
        """Seconds until the record expires."""
        left: int = await self.raw.pttl(self.keys_of(key).record(key))
        return left / 1000

    def neighbours(
        self, number: int, partition: int = 0, name: str = "key", namespace: str = "games"
    ) -> list[RunKey]:
        """So many keys of one partition."""
        found = (RunKey(namespace, f"{name}-{i}") for i in count())
        mine = (key for key in found if partition_of(key, self.partitions) == partition)
        return [next(mine) for _ in range(number)]

    # Moves.

    async def start(self, key: RunKey, wanted: RunPlan | None = None, ttl: float = TTL) -> None:
        await self.store.start(key, wanted or plan(), ttl, restart=False)

    async def jobs(self, worker: str = "w1", limit: int = 100) -> list[Job]:
        """What is queued, delivered to a worker."""
        await self.queue.prepare_queue()
        found: list[Job] = []
        for partition in range(self.partitions):
            found += await self.queue.next_jobs(partition, worker, limit, 0)
        return found

    async def claim(self, worker: str = "w1") -> Claim:
        """Claim the only job that is queued."""
        [job] = await self.jobs(worker)
        claim = await self.queue.claim(job, worker)
        assert claim is not None
        return claim

    async def begin(self, key: RunKey, worker: str = "w1", ttl: float = TTL) -> Claim:
        """Start and claim the only run that is queued."""
        await self.start(key, ttl=ttl)
        return await self.claim(worker)

    async def complete(
        self, *keys: RunKey, wanted: RunPlan | None = None, ttl: float = TTL
    ) -> None:
        """Start these and, one after the other in this order, complete them."""
        for key in keys:
            await self.start(key, wanted, ttl)
        claims = {}
        for job in await self.jobs(limit=10_000):
            claims[job.key] = await self.queue.claim(job, "w1")
        for key in keys:
            claim = claims[key]
            assert claim is not None
            ended = [done("first"), done("second")]
            await self.queue.finish(claim.lease, ended, Status.COMPLETED, "")

    async def find(self, key: RunKey) -> Snapshot | None:
        with suppress(RunNotFound):
            return await self.store.status(key)
        return None

    async def kept(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Those of the keys that have a run, without reading any."""
        return [key for key in keys if await self.find(key)]

    @asynccontextmanager
    async def announcements(
        self, silence: float = SILENCE
    ) -> AsyncIterator[AsyncIterator[Announcement]]:
        async with subscription(self.blocking, self.channels, silence=silence) as heard:
            yield heard


async def first_of(kind: str, heard: AsyncIterator[Announcement]) -> Announcement:
    """The first announcement of this kind; in a cluster, those of before may still arrive."""
    async with asyncio.timeout(10):
        async for announcement in heard:
            if announcement.kind == kind:
                return announcement
    raise AssertionError(f"the subscription ended without {kind!r}")


def spread(record: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """A record with the fields of its line `about` as fields of their own."""
    if b"about" not in record:
        return record
    values = record.pop(b"about").split(b" ", len(NAMES) - 1)
    return record | {name.encode(): value for name, value in zip(NAMES, values, strict=True)}


class Repeating:
    """A client that runs each script several times and returns the last reply.

    So does a Redis that hung, and got a call again before it had answered the first.
    """

    def __init__(self, client: Client, times: int) -> None:
        self._client = client
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def register_script(self, text: str) -> Any:
        script = self._client.register_script(text)

        async def repeated(keys: Sequence[str], args: Sequence[Any]) -> Any:
            for _ in range(self._times):
                reply = await script(keys, args)
            return reply

        return repeated
