"""Random interleavings of two API processes' reading sides on one store, against an oracle.

Announcements arrive late and subscriptions are cut. No caller of a process gets a run that is older
than one which an earlier call of the same process started or returned. No caller waits long for a
run that has ended. At rest, each process returns what the store has.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.deadline import Deadline
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import Waiting
from headstart_service.domain import (
    Announcement,
    Lease,
    Outcome,
    RunKey,
    Status,
    StepRecord,
    StepState,
)
from headstart_service.domain.errors import HeadstartError, RunNotFound, StepsReported
from headstart_service.pipeline.registry import Registry
from headstart_service.store.events import subscription
from headstart_service.values.fragments import report_fragment
from tests.contract.backend import Backend, plan
from tests.support.waiting import wait_until

KEYS = [RunKey("games", name) for name in ("a key", "ключ", "x,1 2\n")]
SECONDS = 4.0
LONGEST = 3.0
"""Seconds that a caller may wait for a run; workers need a tenth of one, also on a busy machine."""
SIZES = (10, 10, 1000, 70_000, 300_000)
"""Bytes of a result: carried by announcements, too large for them, and read by itself."""


def created_us(data: bytes) -> int:
    created = pb.GetResultsResponse.FromString(data).created_at
    return created.seconds * 1_000_000 + created.nanos // 1000


class Process:
    """The reading side of an API process, and what its callers know."""

    def __init__(self, backend: Backend, chance: random.Random) -> None:
        self._backend, self._chance = backend, chance
        self.store = backend.new_store()
        cache = NearCache(10_000_000, self.store.section)
        sections = [partial(self._subscribe, channels) for channels in self.store.sections]
        self.waiting = Waiting(self.store, sections, cache, section=self.store.section)
        self.reader = ResultReader(self.waiting, cache, Registry([]))
        self._known: Counter[RunKey] = Counter()
        """When the latest run was created that a call has started or returned, in microseconds."""

    @asynccontextmanager
    async def _subscribe(
        self, channels: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[Announcement]]:
        async def late(announcements: AsyncIterator[Announcement]) -> AsyncIterator[Announcement]:
            async for announcement in announcements:
                if self._chance.random() < 0.3:
                    await asyncio.sleep(self._chance.choice((0, 0.001, 0.005, 0.05)))
                yield announcement

        async with subscription(self._backend.blocking, channels) as announcements:
            yield late(announcements)

    async def call(self) -> None:
        """Make one call of a random kind."""
        key, chance = self._chance.choice(KEYS), self._chance
        match chance.choices(("get", "start", "cancel", "pause"), (14, 6, 1, 4))[0]:
            case "get":
                await self._get(key, chance.choice((0, 8)), chance.choice((0, 0, 0, 1)))
            case "start":
                began = time.time_ns() // 1000
                wanted, restart = plan(f"d{chance.randint(1, 3)}"), chance.random() < 0.3
                started = await self.store.start(key, wanted, 60, restart=restart)
                self.reader.outdate(key)
                if started.outcome in (Outcome.STARTED, Outcome.REPLACED):
                    self._known[key] = max(self._known[key], began)
            case "cancel":
                await self.store.cancel(key)
                self.reader.outdate(key)
            case _:
                await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.1)))

    async def _get(self, key: RunKey, wait: float, min_revision: int) -> None:
        known, began = self._known[key], time.monotonic()
        data = (await self.reader.get(key, (), Deadline.of_call(wait), min_revision)).data
        assert created_us(data) >= known
        assert time.monotonic() - began < LONGEST
        self._known[key] = max(self._known[key], created_us(data))

    async def knows(self, key: RunKey, created: int) -> bool:
        """Whether a caller is given the run that was created then."""
        return created_us((await self.reader.get(key, (), Deadline.of_call(0), 0)).data) == created

    async def calls(self, until: float) -> None:
        """Make calls until that time of the monotonic clock."""
        while time.monotonic() < until:
            with suppress(RunNotFound):
                await self.call()
            await asyncio.sleep(0)


async def work(backend: Backend, chance: random.Random) -> None:
    """Complete what is queued, for ever."""
    await backend.queue.prepare_queue()
    while True:
        for job in await backend.jobs(limit=10):
            await asyncio.sleep(chance.choice((0, 0, 0.005, 0.05)))
            with suppress(HeadstartError):  # cancelled, or replaced
                if claim := await backend.queue.claim(job, "w1"):
                    await _finish(backend, claim.lease, chance.choice(SIZES))
        await asyncio.sleep(0.005)


async def _finish(backend: Backend, lease: Lease, size: int) -> None:
    text = report_fragment("first", StepState.COMPLETED, error="x" * size)
    step = StepRecord("first", StepState.COMPLETED, text)
    try:
        await backend.queue.finish(lease, [step], Status.COMPLETED, "")
    except StepsReported:  # the run has the step of the one before it
        await backend.queue.finish(lease, [], Status.COMPLETED, "")


async def cut(backend: Backend, chance: random.Random) -> None:
    """Cut all subscriptions now and then, for ever."""
    while True:
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(backend.deployment.cut_subscriptions)


@pytest.mark.parametrize("seed", range(2))
async def test_no_caller_gets_an_older_run_or_waits_long_whatever_happens_at_once(
    store_backend: Backend, seed: int
) -> None:
    chance = random.Random(seed)
    processes = [Process(store_backend, chance) for _ in range(2)]
    waiting = [asyncio.create_task(process.waiting.run()) for process in processes]
    await wait_until(lambda: all(process.waiting.receiving for process in processes))
    beside = [asyncio.create_task(each(store_backend, chance)) for each in (work, cut)]
    until = time.monotonic() + SECONDS
    try:
        async with asyncio.TaskGroup() as group:
            for process in processes * 5:
                group.create_task(process.calls(until))
        assert not any(task.done() for task in (*waiting, *beside))
        beside.pop().cancel()  # no more cuts
        for key in KEYS:
            truth = (await store_backend.store.status(key)).summary.created_us
            for process in processes:
                await wait_until(lambda p=process, k=key, t=truth: p.knows(k, t))
    finally:
        for task in (*waiting, *beside):
            task.cancel()
        await asyncio.gather(*waiting, *beside, return_exceptions=True)
