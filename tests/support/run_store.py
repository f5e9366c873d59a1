"""A store in memory: tests set its runs and its errors, and read what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import (
    Awaits,
    Cancelled,
    Cursors,
    Inspection,
    Orphan,
    Outcome,
    PartialPiece,
    Partials,
    Report,
    RunKey,
    RunPlan,
    RunsPage,
    RunSummary,
    Snapshot,
    Started,
    Stats,
    Status,
    StepRecord,
    StepState,
    Touched,
    WorkerState,
)
from headstart_service.domain.errors import RunNotFound, StoreUnavailable
from tests.support.virtual_time import loop_time


@dataclass(frozen=True)
class StoreCall:
    """One call of the store; `at` is the event loop's time."""

    method: str
    arguments: tuple[Any, ...]
    at: float


class FakeRunStore:
    """Serves the runs that a test sets, as `RunStore` and `OrphanStore`; notes every call.

    Each call fails with what `fails` has for its run or its method, with `error`, or because the
    store is `away`. A run's reader then waits for `gate`.
    """

    def __init__(self, *runs: RunSummary) -> None:
        self.runs = {run.key: run for run in runs}
        self.run = "run-1"
        """The id of each run."""
        self.states: dict[RunKey, Mapping[str, StepState]] = {}
        self.reports: dict[RunKey, Mapping[str, pb.StepReport]] = {}
        self.bodies: dict[RunKey, bytes] = {}
        """Encoded results, for runs that have more than reports."""
        self.required: AbstractSet[str] = frozenset()
        """What the last read was required for."""
        self.partials: dict[RunKey, Sequence[PartialPiece]] = {}
        """What steps have given beyond any cursor."""
        self.lives_for = 60.0
        self.stats_of: dict[str, Stats] = {}
        """Counts by namespace."""
        self.registered: list[WorkerState] = []
        self.orphaned: list[Orphan] = []
        self.adopts = True
        """Whether an adoption succeeds."""
        self.on_start = Started(Outcome.STARTED, Status.PENDING, 1)
        self.on_cancel: Cancelled | None = None
        """The answer to a cancellation; by default the first one of a run succeeds."""
        self.on_touch = Touched(Status.COMPLETED, 2, 1_900_000_000_000_000)
        self.on_report = Report(accepted=True, state=StepState.COMPLETED)
        self.error: Exception | None = None
        self.fails: dict[RunKey | str, Exception] = {}
        self.away = False
        self.failing_takes = 0.0
        """Seconds until a call fails while the store is away."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.meanwhile: Callable[[], None] = lambda: None
        """Called between a read and its answer."""
        self.reading = self.most_reading = 0
        """How many readers wait now, and at most."""
        self.calls: list[StoreCall] = []

    def asked(self, method: str) -> list[Any]:
        """The arguments of each call of a method; one alone as itself."""
        found = [call.arguments for call in self.calls if call.method == method]
        return [each[0] if len(each) == 1 else each for each in found]

    @property
    def inspected(self) -> list[RunKey]:
        """The runs that were inspected, in order."""
        return [key for key, _ in self.asked("inspect")]

    async def _called(self, method: str, *arguments: Any, key: RunKey | None = None) -> None:
        self.calls.append(StoreCall(method, arguments, loop_time()))
        if self.away:
            await asyncio.sleep(self.failing_takes)
            raise StoreUnavailable("away")
        if error := (self.fails.get(key) if key else None) or self.fails.get(method) or self.error:
            raise error

    def snapshot_of(self, key: RunKey) -> Snapshot | None:
        """What the store has of a run now."""
        if key not in self.runs:
            return None
        reports = pb.GetResultsResponse(steps=self.reports.get(key, {})).SerializeToString()
        body = self.bodies.get(key, reports)
        states = self.states.get(key, {"first": StepState.COMPLETED})
        return Snapshot(self.runs[key], self.run, states, body, self.lives_for)

    async def _snapshot(self, key: RunKey) -> Snapshot:
        seen = self.snapshot_of(key)  # what an atomic read sees, however late its answer comes
        self.meanwhile()
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await asyncio.sleep(0)
        await self.gate.wait()
        self.reading -= 1
        if seen is None:
            raise RunNotFound(key.namespace, key.key)
        return seen

    async def start(self, key: RunKey, plan: RunPlan, ttl: float, **more: Any) -> Started:
        await self._called("start", key, plan, ttl, more, key=key)
        return self.on_start

    async def read(
        self,
        key: RunKey,
        *,
        awaits: Awaits = Awaits.NOTHING,
        required: AbstractSet[str] = frozenset(),
    ) -> Snapshot:
        self.required = required
        await self._called("read", key, awaits, key=key)
        return await self._snapshot(key)

    async def read_partials(
        self, key: RunKey, cursors: Cursors, *, follow: bool, tail: int = 0
    ) -> Partials:
        await self._called("read_partials", key, dict(cursors), follow, key=key)
        if key not in self.runs:
            raise RunNotFound(key.namespace, key.key)
        return Partials(self.run, list(self.partials.get(key, ())))

    async def inspect(self, key: RunKey, *, largest: int = 0) -> Inspection:
        await self._called("inspect", key, largest, key=key)
        return Inspection(await self._snapshot(key), 2, "w1")

    async def status(self, key: RunKey) -> Snapshot:
        await self._called("status", key, key=key)
        return await self._snapshot(key)

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        first = key not in [each for each, _ in self.asked("cancel")]
        await self._called("cancel", key, revision, key=key)
        return self.on_cancel or Cancelled(first, Status.CANCELLED, 3)

    async def delete(self, key: RunKey, revision: int = 0) -> bool:
        await self._called("delete", key, revision, key=key)
        return self.runs.pop(key, None) is not None

    async def touch(self, key: RunKey, ttl: float, revision: int = 0) -> Touched:
        await self._called("touch", key, ttl, revision, key=key)
        return self.on_touch

    async def report(
        self,
        key: RunKey,
        run: str,
        revision: int,
        runs_class: str,
        needs: Sequence[str],
        record: StepRecord,
    ) -> Report:
        await self._called("report", key, run, revision, runs_class, needs, record.name, key=key)
        return self.on_report

    async def list(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> Sequence[RunSummary]:
        await self._called("list", namespace, tuple(statuses), after, limit, quiet)
        return [
            run
            for key, run in sorted(self.runs.items(), key=lambda item: item[0].key)
            if run.status in (statuses or Status) and namespace in ("", key.namespace)
        ][:limit]

    async def page(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        key_prefix: str = "",
        pipeline: str = "",
    ) -> RunsPage:
        await self._called("page", namespace, tuple(statuses), after, limit, key_prefix, pipeline)
        runs = [
            run
            for key, run in sorted(self.runs.items(), key=lambda item: item[0].key)
            if run.status in (statuses or Status)
            and namespace in ("", key.namespace)
            and key.key.startswith(key_prefix)
            and pipeline in ("", run.pipeline)
        ]
        more = len(runs) > limit
        return RunsPage(runs[:limit], runs[limit - 1].key if more else None)

    async def stats(self, namespace: str) -> Stats:
        await self._called("stats", namespace)
        return self.stats_of.get(namespace, Stats({}, 0))

    async def workers(self, limit: int) -> Sequence[WorkerState]:
        await self._called("workers", limit)
        return self.registered[:limit]

    async def orphans(self, classes: Iterable[str], ttl: float, limit: int) -> Sequence[Orphan]:
        classes = list(classes)
        await self._called("orphans", classes, ttl, limit)
        return self.orphaned if classes else []

    async def adopt(self, orphan: Orphan, plan: RunPlan) -> bool:
        await self._called("adopt", orphan.key.key, plan, key=orphan.key)
        return self.adopts
