"""Rolling updates of version and model, in every order, under load: no answer is mixed, no run is lost."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import grpc
import pytest

from headstart import (
    DeadlineExceeded,
    PrecomputeClient,
    PrecomputeStatus,
    Results,
    ServiceUnavailable,
    Started,
    StartOutcome,
    StepState,
)
from headstart.v1 import precompute_pb2 as pb
from tests.support.consistency import inconsistencies
from tests.support.processes import Process, address_of, run_headstart, stub
from tests.support.valkey import Valkey
from tests.support.versioned_pipelines import MADE_BY, REFERENCES
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.chaos

REPETITIONS = 5
"""Of each order."""
SIZE = 2
"""API processes, and workers."""
CALLERS = 8
KEYS = 16
LEASE = 1.0
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_LEASE": str(LEASE),
    "HEADSTART_DRAIN": "0.3",
    "HEADSTART_MAX_CACHED_RESULTS": "100000",
    "HEADSTART_GRPC_PORT": "0",
    "HEADSTART_HTTP_PORT": "0",
}
ORDERS = ("API first", "workers first", "mixed", "rollback")
Role = Literal["serve", "worker"]


class Kind(NamedTuple):
    """What makes values."""

    version: str
    model: str

    def after(self, chance: random.Random) -> Kind:
        """Another model, and mostly another version."""
        number = int(self.version) + (chance.random() < 0.6)
        return Kind(str(number), f"m{int(self.model[1:]) + 1}")


@dataclass
class Member:
    """A process of the installation, and when it lived."""

    kind: Kind
    process: Process
    began: float = field(default_factory=time.monotonic)
    ended: float = float("inf")
    client: PrecomputeClient | None = None
    address: str = ""


class Installation:
    """API processes and workers on one store, which are replaced one by one."""

    def __init__(self, redis_url: str, chance: random.Random) -> None:
        self._environment = SETTINGS | {"HEADSTART_REDIS_URL": redis_url}
        self._chance = chance
        self.kind = Kind("1", "m1")
        self.live: dict[Role, list[Member]] = {"serve": [], "worker": []}
        self.workers: list[Member] = []
        """All that there ever were."""
        self.adopted = 0
        self.replaced = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            async with asyncio.TaskGroup() as group:
                for role in ("serve", "worker") * SIZE:
                    group.create_task(self._add(role, self.kind))
            yield
        finally:
            members = [*self.live["serve"], *self.live["worker"]]
            for member in members:
                if member.process.alive:
                    member.process.send(signal.SIGTERM)
            for member in members:
                await self._buried(member)

    async def _add(self, role: Role, kind: Kind) -> None:
        environment = {"TEST_PIPELINE_VERSION": kind.version, "HEADSTART_HAIKU_MODEL": kind.model}
        flags = ("--no-worker",) if role == "serve" else ()
        process = run_headstart(role, *flags, **self._environment, **environment)
        member = Member(kind, process)
        if role == "worker":
            self.workers.append(member)
            self.live[role].append(member)
            await process.says("headstart worker ready")
        else:
            member.address = await address_of(process)
            member.client = PrecomputeClient(member.address, timeout=PATIENT)
            self.live[role].append(member)

    async def _remove(self, role: Role, kind: Kind) -> None:
        member = next(each for each in self.live[role] if each.kind == kind)
        self.live[role].remove(member)
        if role == "worker" and self._chance.random() < 0.2:
            member.process.kill()
            member.ended = time.monotonic() + LEASE
        else:
            member.process.send(signal.SIGTERM)
            assert await member.process.ended() == 0
            member.ended = time.monotonic()
        await self._buried(member)

    async def _buried(self, member: Member) -> None:
        if member.client is not None:
            await member.client.close()
        self.adopted += len(re.findall(r" adopted: ", member.process.output))
        member.process.stop()

    async def replace(self, role: Role, old: Kind, new: Kind) -> None:
        """One process; the new one comes before the old one goes, or behind it."""
        steps = [self._add(role, new), self._remove(role, old)]
        for step in steps if self._chance.random() < 0.7 else reversed(steps):
            await step
        self.replaced += 1
        await asyncio.sleep(self._chance.uniform(0, 0.4))  # the moment of the next is the test

    async def update(self, order: str) -> None:
        """All of them to another kind; a rollback ends where it began."""
        old, new = self.kind, self.kind.after(self._chance)
        plan: list[Role] = ["serve"] * SIZE + ["worker"] * SIZE
        if order == "workers first":
            plan.reverse()
        elif order != "API first":
            self._chance.shuffle(plan)
        if order == "rollback":
            done = plan[: self._chance.randint(1, len(plan) - 1)]
            for role in done:
                await self.replace(role, old, new)
            for role in self._chance.sample(done, len(done)):
                await self.replace(role, new, old)
            return
        for role in plan:
            await self.replace(role, old, new)
        self.kind = new

    def had(self, kind: Kind, since: float, till: float) -> bool:
        """Whether a worker of this kind lived at some time between."""
        mine = (each for each in self.workers if each.kind == kind)
        return any(each.began <= till and each.ended >= since for each in mine)


class Callers:
    """A steady load through all API processes, which judges every answer."""

    def __init__(self, installation: Installation, chance: random.Random) -> None:
        self._installation, self._chance = installation, chance
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []
        self.started: set[str] = set()
        self._numbers = iter(range(1_000_000))

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        callers = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            for caller in callers:
                caller.cancel()
            for ended in await asyncio.gather(*callers, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    def _api(self) -> Member:
        return self._chance.choice(self._installation.live["serve"])

    async def _call(self) -> None:
        while True:
            try:
                await self._one()
            except (ServiceUnavailable, DeadlineExceeded):
                self.counts["calls of processes that went"] += 1
            await asyncio.sleep(self._chance.uniform(0, 0.05))

    async def _one(self) -> None:
        again = self._chance.random() < 0.8
        key = f"key-{self._chance.randrange(KEYS)}" if again else f"run-{next(self._numbers)}"
        inputs = {
            "value": self._chance.choice((1, 1, 1, 1, 2)),
            "count": self._chance.choice((1, 1, 1, 2)),
            "pause": self._chance.choice((0.05, 0.15)) if not again else 0.1,
        }
        api = self._api()
        assert api.client is not None
        since = time.monotonic()
        started = await api.client.start(key, "versioned", inputs)
        till = time.monotonic()
        self.started.add(key)
        self.counts[f"starts: {started.outcome}"] += 1
        if started.outcome is StartOutcome.REUSED:
            results = await api.client.get_results(key)
            self._judge(key, results)
            if results.revision == started.revision:
                self._judge_makers(key, results, since, till, started)
            return
        for _ in range(self._chance.randrange(4)):
            reader = self._api()
            assert reader.client is not None
            wait = self._chance.choice((0.0, 0.1, 0.6))
            results = await reader.client.get_results(key, wait=wait, min_revision=started.revision)
            self._judge(key, results)
            if results.status is PrecomputeStatus.COMPLETED:
                self._judge_makers(key, results, since, time.monotonic(), started)
            elif self._chance.random() < 0.3:
                await self._report(key, reader, results)

    def _judge(self, key: str, results: Results) -> None:
        self.counts["reads"] += 1
        if results.pending_reason:
            self.counts[f"reads: {results.pending_reason}"] += 1
        if results.status not in (
            PrecomputeStatus.PENDING,
            PrecomputeStatus.IN_PROGRESS,
            PrecomputeStatus.COMPLETED,
        ):
            self.bad.append(f"{key} {results.status}: {results.error} {results.steps}")
        if len(kinds(results)) > 1:
            self.bad.append(f"{key} is mixed: {results}")

    def _judge_makers(
        self, key: str, results: Results, since: float, till: float, started: Started
    ) -> None:
        """Workers that lived between the start and its answer have made it."""
        self.counts["answers whose makers were judged"] += 1
        for kind in kinds(results):
            if not self._installation.had(kind, since, till):
                self.bad.append(f"{key} {started.outcome}: no worker was {kind}")

    async def _report(self, key: str, api: Member, results: Results) -> None:
        """As a caller that has computed `two` itself, of `one` as it has read it."""
        one = (results.custom or {}).get("one")
        if not isinstance(one, str) or results.steps["two"].state is StepState.COMPLETED:
            return
        [kind] = kinds(results)
        await asyncio.sleep(self._chance.choice((0, 0, 0.2)))
        value = f"version {kind.version} model {kind.model}, {one}"
        request = pb.ReportStepRequest(key=key, revision=results.revision, step="two")
        request.artifact.json = json.dumps(value)
        with suppress(grpc.aio.AioRpcError):
            async with stub(api.address) as service:
                answer = await service.ReportStep(request, timeout=PATIENT)
                self.counts[f"reports: {'taken' if answer.accepted else 'refused'}"] += 1

    async def see_to_end(self) -> None:
        """Every run that was started is completed."""
        [api, *_] = self._installation.live["serve"]
        assert api.client is not None
        client = api.client

        async def completed(key: str) -> None:
            results = await client.get_results(key, wait=40, timeout=60)
            self._judge(key, results)
            if results.status is not PrecomputeStatus.COMPLETED:
                self.bad.append(f"{key} ends {results.status}: {results.pending_reason}")

        await asyncio.gather(*map(completed, self.started))


def kinds(results: Results) -> set[Kind]:
    """What made the values of an answer."""
    return set(_kinds(results))


def _kinds(results: Results) -> Iterator[Kind]:
    for each in (results.custom or {}).values():
        assert isinstance(each, str)
        for version, model in MADE_BY.findall(each):
            yield Kind(version, model)


@asynccontextmanager
async def counted_events(valkey: Valkey, counts: Counter[str]) -> AsyncIterator[None]:
    """Count runs that workers leave for others."""
    client = valkey.client()
    listener = client.pubsub()
    await listener.psubscribe("headstart:*")

    async def count() -> None:
        async for message in listener.listen():
            if message["type"] == "pmessage" and message["data"].startswith(b"unserved "):
                counts["runs left for other workers"] += 1

    counting = asyncio.create_task(count())
    try:
        yield
    finally:
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
        await listener.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()


@pytest.mark.parametrize("order", ORDERS)
async def test_a_rolling_update_mixes_no_answer_and_loses_no_run(
    valkey: Valkey, chance: random.Random, order: str
):
    installation = Installation(valkey.url, chance)
    callers = Callers(installation, chance)
    async with installation.running(), counted_events(valkey, callers.counts):
        async with callers.calling():
            for _ in range(REPETITIONS):
                await installation.update(order)
                assert not callers.bad, callers.bad[:5]
        await callers.see_to_end()
        [api, *_] = installation.live["serve"]
        assert api.client is not None
        client = api.client

        async def idle() -> bool:
            stats = await client.get_stats()
            return stats.queued_jobs == 0 and stats.active_tasks == 0

        await wait_until(idle, 30)
    print(
        f"{order}: {REPETITIONS} updates, {installation.replaced} processes replaced, "
        f"{len(callers.started)} keys, {installation.adopted} adopted",
        *sorted(callers.counts.items()),
        sep="\n  ",
    )
    assert not callers.bad, callers.bad[:5]
    assert inconsistencies([valkey.url]) == []
