"""Workers on a real queue, running games that tests hold, fail and let go."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from headstart_service.domain import RunKey, Snapshot, Started, Status, StepState
from headstart_service.domain.errors import RunNotFound, StoreUnavailable
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from headstart_service.store.connect import WORKER
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.redis_store import RedisStore
from headstart_service.worker.executors.executors import Executors
from headstart_service.worker.worker import Worker
from headstart_service.worker.worker_observer import WorkObserver
from headstart_service.worker.worker_rules import WorkerRules
from tests.contract.backend import Backend
from tests.support.deployments import Deployment
from tests.support.ledger import pipeline_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


@dataclass
class Control:
    """What steps are held at and tell of themselves, by the name of their run."""

    gates: defaultdict[str, asyncio.Event] = field(
        default_factory=lambda: defaultdict(asyncio.Event)
    )
    first: Counter[str] = field(default_factory=Counter)
    second: Counter[str] = field(default_factory=Counter)
    running: int = 0
    peak: int = 0

    async def hold(self, name: str) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.gates[name].wait()
        finally:
            self.running -= 1


class Named(BaseModel):
    name: str
    text: str = ""


@step(required=True)
async def first(name: str, control: Control) -> str:
    control.first[name] += 1
    return name


@step(required=True, timeout=60)
async def second(name: str, first: str, text: str, control: Control) -> str:
    control.second[name] += 1
    await control.hold(name)
    return f"{first} {text}"


GAME = pipeline_of(first, second, name="game", inputs=Named)
UNKNOWN = pipeline_of(first, second, name="unknown", inputs=Named)


class QueueWrapper:
    """A queue in front of another one: what a subclass does not define goes to the other."""

    def __init__(self, queue: RedisJobQueue | QueueWrapper) -> None:
        self.queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)


@dataclass
class Games:
    """Runs of games in a backend, and the workers that run them."""

    valkey: Valkey
    store: RedisStore
    queue: RedisJobQueue
    control: Control = field(default_factory=Control)

    async def start(self, name: str, text: str = "", pipeline=GAME) -> Started:
        plan = pipeline.plan({"name": name, "text": text}, "inputs")
        return await self.store.start(RunKey("default", name), plan, 600.0, restart=False)

    async def snapshot(self, name: str) -> Snapshot:
        return await self.store.read(RunKey("default", name))

    async def status(self, name: str) -> Status | None:
        try:
            return (await self.snapshot(name)).summary.status
        except (RunNotFound, StoreUnavailable):
            return None

    async def until(self, name: str, status: Status) -> None:
        async def reached() -> bool:
            return await self.status(name) is status

        await wait_until(reached)

    async def until_kept(self, name: str, step: str) -> None:
        """Return once the result of a run's step is in the store."""

        async def kept() -> bool:
            return (await self.snapshot(name)).states[step] is StepState.COMPLETED

        await wait_until(kept)

    async def until_heard(self, listeners: int = 1) -> None:
        """Return when so many workers listen for withdrawals."""
        async with self.valkey.client() as client:

            async def subscribed() -> bool:
                channel = PartitionKeys(0).unserved
                counts = dict(await client.pubsub_shardnumsub(channel))
                return counts.get(channel.encode(), 0) >= listeners

            await wait_until(subscribed)

    def worker(
        self,
        name: str = "w1",
        queue: RedisJobQueue | None = None,
        observer: WorkObserver | None = None,
        pipelines: Sequence[Pipeline] = (GAME,),
        executors: Executors | None = None,
        **rules,
    ) -> Worker:
        merged = {"name": name, "concurrency": 4, "lease": 30.0, "drain": 5.0} | rules
        merged.setdefault("runs", merged["concurrency"])
        registry = Registry(pipelines)
        providers = {"control": self.control}
        rules = WorkerRules(**merged)
        return Worker(
            queue or self.queue, registry, providers, rules, observer, executors=executors
        )

    @asynccontextmanager
    async def working(self, name: str = "w1", **rules) -> AsyncIterator[asyncio.Task[None]]:
        """A worker that works while the context is open, then drains."""
        worker = self.worker(name, **rules)
        serving = asyncio.create_task(worker.serve(), name=name)
        try:
            yield serving
        finally:
            worker.stop()
            async with asyncio.timeout(20):
                await asyncio.wait({serving})
        serving.result()


@asynccontextmanager
async def games_on(
    valkey: Valkey, *, lease: float = 30.0, partitions: int = 1, budget: float = 2.0
) -> AsyncIterator[Games]:
    """A deployment's runs; workers connect as soon as in production, and give up as soon."""
    deployment = Deployment(valkey.url, (valkey.url,))
    async with Backend.open(deployment, partitions, connect=WORKER.connect) as backend:
        queue = backend.new_queue(lease, budget=budget)
        try:
            yield Games(valkey, backend.store, queue)
        finally:
            await queue.aclose()
            await backend.store.aclose()


@pytest.fixture
async def games(valkey: Valkey) -> AsyncIterator[Games]:
    async with games_on(valkey) as made:
        yield made
