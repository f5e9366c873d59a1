"""The runs that a worker holds, each with what computes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..domain import Lease, Reported, RunKey, Status
from .occupancy import Occupancy
from .reported_steps import ReportedSteps
from .settling import Settling
from .worker_observer import RunEnd, RunOutcome


@dataclass(slots=True)
class HeldRun:
    """A run that its worker computes."""

    outcome: RunOutcome
    reports: ReportedSteps
    settling: Settling
    task: asyncio.Task[Status]
    occupancy: Occupancy | None
    """None of a run that has the worker to itself."""

    @property
    def computes(self) -> bool:
        """Whether it has a slot; else it only waits for what is elsewhere."""
        return self.occupancy is None or self.occupancy.occupied

    @property
    def is_handed_on(self) -> bool:
        """Whether another worker is to go on with it."""
        return self.outcome.state is RunEnd.HANDED_ON

    def hand_on(self) -> None:
        """Stop it here, for another worker to go on with it."""
        self.outcome.state = RunEnd.HANDED_ON
        if self.occupancy is not None:
            self.occupancy.handed_on = True
        self.task.cancel()

    def cancel(self, why: str = "") -> None:
        """Stop it; `why` goes to its outcome unless that has a reason."""
        self.outcome.error = self.outcome.error or why
        self.task.cancel()


class HeldRuns:
    """Holds each run by its lease."""

    def __init__(self) -> None:
        self._runs: dict[Lease, HeldRun] = {}

    @contextmanager
    def holding(self, lease: Lease, run: HeldRun) -> Iterator[None]:
        """Hold a run while the context is open."""
        self._runs[lease] = run
        try:
            yield
        finally:
            del self._runs[lease]

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def leases(self) -> Sequence[Lease]:
        """The leases of all runs."""
        return list(self._runs)

    @property
    def all(self) -> Sequence[HeldRun]:
        """All runs."""
        return list(self._runs.values())

    @property
    def computing(self) -> int:
        """How many runs have a slot; the others only wait for what is elsewhere."""
        return sum([each.computes for each in self.all])

    def get(self, lease: Lease) -> HeldRun | None:
        """Return the run of a lease, if it is held still."""
        return self._runs.get(lease)

    def of(self, key: RunKey, run: str) -> Sequence[HeldRun]:
        """Return what computes the run of this key and id."""
        return [
            held
            for lease, held in self._runs.items()
            if (lease.job.key, lease.job.run) == (key, run)
        ]

    def pass_on(self, reported: Reported) -> None:
        """Pass reported steps to the run that computes them."""
        for held in self.of(reported.key, reported.run):
            held.reports.pass_on(reported.steps)
