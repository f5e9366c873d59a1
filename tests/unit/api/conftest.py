"""A store and an announcement stream that tests hold, fail and count; and what is built on them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.deadline import Deadline
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.method_table import METHOD_TABLE
from headstart_service.api.results.answer import Answer, answer_from
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import POLL, Waiting
from headstart_service.domain import (
    Announcement,
    Awaits,
    EventKind,
    RunKey,
    RunSummary,
    Snapshot,
    Status,
    StepState,
)
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.values.fragments import report_fragment
from tests.support.ledger import pipeline_of
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until

KEY = RunKey("default", "game-1")
PENDING, RUNNING, COMPLETED = StepState.PENDING, StepState.RUNNING, StepState.COMPLETED


@step()
async def one() -> int:
    return 1


@step()
async def two() -> int:
    return 2


@step()
async def three() -> int:
    return 3


PIPELINE = pipeline_of(one, two, three)


def summary_of(status: Status = Status.IN_PROGRESS, revision: int = 1) -> RunSummary:
    return RunSummary(KEY, "test", revision, status, 10, 20, 30 if status.ended else 0, 40, "")


def snapshot_of(
    states: dict[str, StepState],
    status: Status = Status.IN_PROGRESS,
    revision: int = 1,
    run: str = "",
) -> Snapshot:
    """What the store has of a run; its id, if it is not given, is that of its revision."""
    body = b"".join(report_fragment(n, s) for n, s in states.items() if s is not PENDING)
    return Snapshot(summary_of(status, revision), run or f"run-{revision}", states, body, 600.0)


class AnnouncedRun(FakeRunStore):
    """A store of one run, whose changes are announced."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self.snapshot: Snapshot | None = snapshot_of(
            dict.fromkeys(("one", "two", "three"), PENDING)
        )
        self.failing_takes = 0.02  # as long as a connection takes to fail

    @property
    def reads(self) -> int:
        return len(self.asked("read"))

    @property
    def waited_for(self) -> bool:
        """Whether a read was one of a caller that waits."""
        return any(awaits for _, awaits in self.asked("read"))

    def snapshot_of(self, key: RunKey) -> Snapshot | None:
        return self.snapshot

    async def read(
        self,
        key: RunKey,
        *,
        awaits: Awaits = Awaits.NOTHING,
        required: AbstractSet[str] = frozenset(),
    ) -> Snapshot:
        if self.snapshot is not None and self.snapshot.summary.status.ended:
            awaits = max(awaits, Awaits.END)
        if not self.away:
            self._wire.awaits[key] = max(awaits, self._wire.awaits.get(key, Awaits.NOTHING))
        return await super().read(key, awaits=awaits, required=required)

    def now(
        self,
        status: Status = Status.IN_PROGRESS,
        revision: int = 1,
        run: str = "",
        **states: StepState,
    ) -> None:
        """Change the run, silently."""
        assert self.snapshot is not None
        old = dict(self.snapshot.states)
        self.snapshot = snapshot_of(old | states, status, revision, run)

    def end(self, *steps: str) -> None:
        """End these steps, and the run once all have ended; announce it."""
        self.now(**dict.fromkeys(steps, COMPLETED))
        assert self.snapshot is not None
        if all(state.ended for state in self.snapshot.states.values()):
            self.now(Status.COMPLETED)
            self._wire.say("ended")
        else:
            self._wire.say("step", *steps)


_LEAST = {
    EventKind.RESET: Awaits.NOTHING,
    EventKind.STARTED: Awaits.END,
    EventKind.ENDED: Awaits.END,
    EventKind.CANCELLED: Awaits.END,
    EventKind.DROPPED: Awaits.END,
    EventKind.STEP: Awaits.STEPS,
    EventKind.REPORTED: Awaits.STEPS,
}


class Wire:
    """The stream of announcements. It can be cut; what is said meanwhile is lost."""

    def __init__(self) -> None:
        self._streams: list[asyncio.Queue[Announcement | None]] = []
        self.refusing = False
        self.subscriptions = 0
        self.awaits: dict[RunKey, Awaits] = {}
        """What the process awaits of each run that it has read."""

    @property
    def delivered(self) -> bool:
        """Whether all that was said has been taken."""
        return all(stream.empty() for stream in self._streams)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[Announcement]]:
        if self.refusing:
            raise StoreUnavailable("cannot subscribe")
        stream: asyncio.Queue[Announcement | None] = asyncio.Queue()
        self._streams.append(stream)
        self.subscriptions += 1

        async def announcements() -> AsyncIterator[Announcement]:
            while (announcement := await stream.get()) is not None:
                yield announcement
            raise StoreUnavailable("subscription lost")

        try:
            yield announcements()
        finally:
            self._streams.remove(stream)

    def say(self, kind: str, *steps: str, key: RunKey = KEY, run: str = "run-1") -> None:
        """Announce this, if the process has read the run and awaits it, as the store does."""
        what = EventKind(kind)
        if self.awaits.get(key, Awaits.NOTHING) < _LEAST.get(what, Awaits.CHANGES):
            return
        if what is EventKind.STARTED:
            self.awaits[key] = Awaits.NOTHING
        self.send(Announcement(what, key, run, steps))

    def send(self, announcement: Announcement) -> None:
        """Announce this, whatever the process awaits."""
        for stream in self._streams:
            stream.put_nowait(announcement)

    def cut(self) -> None:
        for stream in self._streams:
            stream.put_nowait(None)


@dataclass
class Api:
    """One API process's reading side."""

    store: AnnouncedRun
    wire: Wire
    cache: NearCache
    waiting: Waiting
    reader: ResultReader

    def get(self, *steps: str, wait: float = 20.0, key: RunKey = KEY) -> asyncio.Task[bytes]:
        async def data() -> bytes:
            return (await self.reader.get(key, steps, Deadline.of_call(wait))).data

        return asyncio.create_task(data(), name="waiter")

    async def parked(self, waiters: int = 1) -> None:
        """Return when so many wait, each after its first look."""
        await wait_until(lambda: self.waiting.waiters == waiters)
        await self.settled()

    @staticmethod
    async def settled() -> None:
        """Give each task the few turns of the loop that it needs until it sleeps."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    wire = Wire()
    store = AnnouncedRun(wire)
    cache = NearCache(1_000_000)
    waiting = Waiting(
        store,
        [wire.subscribe],
        cache,
        poll=getattr(request, "param", POLL),
    )  # type: ignore[arg-type]
    reader = ResultReader(waiting, cache, Registry([PIPELINE]))
    running = asyncio.create_task(waiting.run(), name="hub")
    await wait_until(lambda: waiting.receiving)
    yield Api(store, wire, cache, waiting, reader)
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})
    assert waiting.waiters == 0


class FakeReader:
    """Remembers what it was asked for, and which runs were outdated."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.outdated: list[str] = []

    def outdate(self, key: RunKey) -> None:
        self.outdated.append(str(key))

    async def get(
        self,
        key: RunKey,
        steps: Sequence[str],
        deadline: Deadline,
        min_revision: int = 0,
        result_steps: Sequence[str] = (),
    ) -> Answer:
        self.waits.append(deadline.wait)
        return answer_from(snapshot_of({}))


def dependencies_of(reader: Any = None, store: Any = None) -> Dependencies:
    """Return what methods need whose validation can be tried without a store."""
    return Dependencies(
        store,
        Registry([BRIDGING, PIPELINE]),
        reader or FakeReader(),
        ApiRules(result_ttl=1800.0, max_records=1000),
    )


class Methods:
    """Every method of the table, by its name in Python: `get_status(request, Call())`."""

    def __init__(self, api: Dependencies) -> None:
        self._methods = {
            re.sub("(?<!^)([A-Z])", r"_\1", name).lower(): method.handler(api).handle
            for name, method in METHOD_TABLE.items()
        }

    def __getattr__(self, name: str) -> Any:
        return self._methods[name]


def methods_of(reader: Any = None, store: Any = None) -> Methods:
    """Return the methods, on `dependencies_of` these."""
    return Methods(dependencies_of(reader, store))


def states(answer: bytes | Answer) -> dict[str, str]:
    data = answer.data if isinstance(answer, Answer) else answer
    steps = pb.GetResultsResponse.FromString(data).steps
    return {
        name: pb.StepState.Name(r.state).removeprefix("STEP_STATE_") for name, r in steps.items()
    }


async def soon(task: asyncio.Task[bytes]) -> bytes:
    """The answer of a waiter that must not have to wait for its time to end."""
    async with asyncio.timeout(5):
        return await task
