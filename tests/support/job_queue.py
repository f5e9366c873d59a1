"""A job queue in memory, and workers on it whose runs tests hold."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel

from headstart_service.domain import (
    Claim,
    FailureReason,
    Job,
    Lease,
    Offer,
    Reported,
    RunKey,
    Status,
    StepRecord,
    Withdrawal,
    WorkerState,
)
from headstart_service.domain.errors import LastTry, StepsReported, StoreUnavailable
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from headstart_service.worker.worker import Worker
from headstart_service.worker.worker_rules import WorkerRules
from tests.support.ledger import Ledger, claim_for, pipeline_of
from tests.support.virtual_time import loop_time

LEASE = 15.0
MINUTE = 60.0


class Named(BaseModel):
    name: str


class Gates:
    """Holds runs until they may end; keeps which have begun, and which were stopped."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@step(required=True, timeout=3600)
async def held(name: str, gates: Gates) -> str:
    gates.begun.append(name)
    try:
        await gates.open[name].wait()
    except asyncio.CancelledError:
        gates.stopped.append(name)
        raise
    return name


PIPELINE = pipeline_of(held, inputs=Named)


def job_of(name: str) -> Job:
    return Job(0, f"{name}-1", RunKey("default", name), name)


class FakeQueue(Ledger):
    """Delivers each job by the method that it is given for; notes with what it was called.

    All calls fail while it is `away`, those of one method or partition while that is `failing` or
    `refusing`.
    """

    def __init__(self, partitions: int = 1) -> None:
        super().__init__()
        self.partitions = partitions
        self.away = False
        self.calls: Counter[str] = Counter()
        self.jobs: dict[str, list[Job]] = {"next_jobs": [], "lost_jobs": [], "unserved_jobs": []}
        self.alone: list[tuple[str, bool]] = []
        self.taken: set[str] = set()
        """The runs of jobs that other workers have taken."""
        self.heard: list[Withdrawal | Reported] = []
        self.lost: set[RunKey] = set()
        self.shown: WorkerState | None = None
        self.reported: dict[str, StepRecord] = {}
        self.stopped: list[StepRecord] = []
        self.finished: list[str] = []
        self.slot_seconds: list[float | None] = []
        self.asked: list[tuple[str, int, int]] = []
        """The method, partition and limit of each request for jobs."""
        self.times: list[tuple[str, float]] = []
        self.released: list[str] = []
        self.shown_for: list[float] = []
        self.offered: list[tuple[int, list[str]]] = []
        self.left = 0
        self.failing: set[str] = set()
        self.refusing: set[int] = set()

    async def count_stopped(self, lease: Lease, stopped: StepRecord) -> None:
        self.stopped.append(stopped)

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.away:
            raise StoreUnavailable("refused")
        self.times.append((name, loop_time()))
        if name in self.failing:
            raise StoreUnavailable(f"{name} failed")

    def _delivered(self, name: str, limit: int) -> Sequence[Job]:
        self._called(name)
        found, self.jobs[name] = self.jobs[name][:limit], self.jobs[name][limit:]
        return found

    async def prepare_queue(self) -> None:
        self._called("prepare_queue")

    async def next_jobs(
        self, partition: int, worker: str, limit: int, wait: float
    ) -> Sequence[Job]:
        self.asked.append(("next_jobs", partition, limit))
        if partition in self.refusing:
            raise StoreUnavailable(f"partition {partition} refused")
        if not self.away and not self.jobs["next_jobs"]:
            await asyncio.sleep(wait)
        return self._delivered("next_jobs", limit)

    async def lost_jobs(self, partition: int, worker: str, limit: int) -> Sequence[Job]:
        self.asked.append(("lost_jobs", partition, limit))
        return self._delivered("lost_jobs", limit)

    async def unserved_jobs(
        self, partition: int, worker: str, offers: Sequence[Offer], limit: int
    ) -> Sequence[Job]:
        self.asked.append(("unserved_jobs", partition, limit))
        return self._delivered("unserved_jobs", limit)

    async def offer(self, partition: int, worker: str, offers: Sequence[Offer]) -> int:
        self.offered.append((partition, [offer.pipeline for offer in offers]))
        self._called("offer")
        return len(self.jobs["unserved_jobs"])

    async def claim(
        self, job: Job, worker: str, offers: Sequence[Offer], *, alone: bool = True
    ) -> Claim | None:
        self._called("claim")
        self.alone.append((job.run, alone))
        if job.run in self.taken:
            return None
        if job.run == "last" and not alone:
            raise LastTry(str(job.key))
        return claim_for(PIPELINE, job.run, name=job.run)

    async def renew(self, leases: Sequence[Lease], worker: str) -> Sequence[Lease]:
        self._called("renew")
        return [lease for lease in leases if lease.job.key in self.lost]

    async def release(self, lease: Lease) -> None:
        self._called("release")
        self.released.append(lease.job.key.key)

    async def sweep(self) -> None:
        self._called("sweep")

    async def heartbeat(self, state: WorkerState, ttl: float) -> None:
        self._called("heartbeat")
        self.shown = state
        self.shown_for.append(ttl)

    async def deregister(self, worker: str) -> None:
        self.left += 1
        self._called("deregister")

    @asynccontextmanager
    async def withdrawals(self) -> AsyncIterator[AsyncIterator[Any]]:
        self._called("withdrawals")

        async def hear() -> AsyncIterator[Withdrawal | Reported]:
            while not self.away:
                while self.heard:
                    yield self.heard.pop(0)
                await asyncio.sleep(0.1)
            self._called("withdrawals")

        yield hear()

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        taken = [self.reported[r.name] for r in (*ended, *running) if r.name in self.reported]
        if taken:
            raise StepsReported(taken)

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        await self.commit(lease, ended, ())
        self.finished.append(lease.job.key.key)
        self.slot_seconds.append(slot_seconds)


@asynccontextmanager
async def working(
    queue: FakeQueue, gates: Gates, concurrency: int = 4, runs: int = 0, **more: Any
) -> AsyncIterator[Worker]:
    rules = WorkerRules(
        name="w1",
        concurrency=concurrency,
        runs=runs or concurrency,
        lease=LEASE,
        drain=5.0,
        host="box",
        version="1.2",
    )
    worker = Worker(queue, Registry([PIPELINE]), {"gates": gates}, rules, **more)
    serving = asyncio.create_task(worker.serve())
    try:
        yield worker
    finally:
        queue.away = False
        worker.stop()
        await serving
