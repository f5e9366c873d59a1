"""The ledger of `headstart.testing.fake_server`: what became of runs, by the service's rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from headstart._fake.runs import FakeRun
from headstart._messages.descriptions import Fate
from headstart._messages.results import PrecomputeStatus, StepOrigin, StepState
from headstart.v1 import precompute_pb2 as pb

_ENDS: Final = {PrecomputeStatus.FAILED: "failed", PrecomputeStatus.CANCELLED: "cancelled"}


@dataclass
class _Line:
    """A run of which it is not known yet what becomes of it."""

    run: FakeRun
    first_read: float | None = None
    used: bool = False
    """Whether a step of it was read."""
    counted: set[str] = field(default_factory=set)
    unread: dict[str, float] = field(default_factory=dict)
    """Ended steps that no caller has read, with their seconds."""


@dataclass
class _Book:
    """The sums of a namespace, or of all."""

    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    starts: int = 0
    joined: int = 0
    reused: int = 0
    hidden: float = 0.0
    waited: float = 0.0
    runs: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    steps: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    compute: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    pipelines: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How many runs were read, and the seconds that they hid."""


class FakeAccounting:
    """Counts as the service's scripts do. `now` is the time of all timetables."""

    def __init__(self) -> None:
        self._all: _Book | None = None
        self._books: dict[str, _Book] = {}
        self._lines: dict[tuple[str, str], _Line] = {}

    def started(self, run: FakeRun) -> None:
        """Note that a run was queued."""
        if self._all is None:
            self._all = _Book()
        self._books.setdefault(run.namespace, _Book())
        self._lines[run.namespace, run.key] = _Line(run)
        for book in self._both(run):
            book.starts += 1

    def joined(self, run: FakeRun) -> None:
        """Note that a run under way served a start."""
        for book in self._both(run):
            book.joined += 1

    def reused(self, run: FakeRun) -> None:
        """Note that a result served a start."""
        for book in self._both(run):
            book.reused += 1

    def read(self, run: FakeRun, now: float) -> None:
        """Note that a caller has received what exists of a run."""
        line = self._noted(run, now)
        if line is None:
            return
        fate = "used_ready" if line.first_read is None else "used_waited"
        if not run.status(now).ended:
            line.used |= bool(line.unread)
            self._count_unread(line, fate)
            line.first_read = now if line.first_read is None else line.first_read
            return
        end = run.ends_at()
        came = end if line.first_read is None else min(line.first_read, end)
        hidden = max(0.0, came - run.taken_at())
        for book in self._both(run):
            book.hidden += hidden
            book.waited += end - came
            runs, seconds = book.pipelines.get(run.pipeline, (0, 0.0))
            book.pipelines[run.pipeline] = (runs + 1, seconds + hidden)
        self._settle(line, fate)

    def gone(self, run: FakeRun, fate: str, now: float) -> None:
        """Note that a run was cancelled, has expired or was replaced."""
        if line := self._noted(run, now):
            if fate != "expired":  # a worker stops what it has begun
                for name, state in run.states(now).items():
                    if state is StepState.RUNNING:
                        spent = min(run.steps[name].after, now - run.taken_at())
                        self._count(run, fate, max(0.0, spent))
            self._settle(line, fate)

    def message(self, namespace: str, now: float) -> pb.Ledger | None:
        """Return what GetStats answers of a namespace, or of all if it is empty."""
        book = self._books.get(namespace) if namespace else self._all
        if book is None:
            return None
        for line in list(self._lines.values()):
            self._noted(line.run, now)
        lines = [at for at in self._lines if namespace in {"", at[0]}]
        message = pb.Ledger(
            starts=book.starts, joined=book.joined, reused=book.reused, unsettled=len(lines)
        )
        message.since.FromDatetime(book.since)
        message.hidden.FromTimedelta(timedelta(seconds=book.hidden))
        message.waited.FromTimedelta(timedelta(seconds=book.waited))
        for fate in Fate:
            work = message.fates.add(fate=pb.Fate.Value(f"FATE_{fate.name}"))
            work.runs, work.steps = book.runs[fate], book.steps[fate]
            work.compute.FromTimedelta(timedelta(seconds=book.compute[fate]))
            work.cpu.SetInParent()
        for name, (runs, seconds) in book.pipelines.items():
            message.pipelines[name].runs = runs
            message.pipelines[name].hidden.FromTimedelta(timedelta(seconds=seconds))
        return message

    def _both(self, run: FakeRun) -> list[_Book]:
        return [book for book in (self._all, self._books.get(run.namespace)) if book is not None]

    def _noted(self, run: FakeRun, now: float) -> _Line | None:
        """Return the run's line, if it is open, with all that has ended by now."""
        line = self._lines.get((run.namespace, run.key))
        if line is None or line.run is not run:
            return None
        for name, state in run.states(now).items():
            step = run.steps[name]
            # This run has not computed reported results, or those of another run.
            foreign = name in run.reports or step.origin is not StepOrigin.COMPUTED
            if name in line.counted or foreign:
                continue
            if state is StepState.FAILED:
                line.counted.add(name)
                self._count(run, "failed", step.after)
            elif state is StepState.COMPLETED:
                line.counted.add(name)
                line.unread[name] = step.after
        if fate := _ENDS.get(run.status(now)):
            self._settle(line, fate)
            return None
        return line

    def _settle(self, line: _Line, fate: str) -> None:
        own = "used_waited" if line.used and fate in {"expired", "replaced"} else fate
        for book in self._both(line.run):
            book.runs[own] += 1
        self._count_unread(line, fate)
        del self._lines[line.run.namespace, line.run.key]

    def _count_unread(self, line: _Line, fate: str) -> None:
        for seconds in line.unread.values():
            self._count(line.run, fate, seconds)
        line.unread.clear()

    def _count(self, run: FakeRun, fate: str, seconds: float) -> None:
        for book in self._both(run):
            book.steps[fate] += 1
            book.compute[fate] += seconds
