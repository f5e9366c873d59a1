"""How long runs and their steps took lately: what a worker tells, and what all of them do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ..domain import Claim, Spread
from .worker_observer import (
    RunEnd,
    RunOutcome,
    StepEnd,
    StepOutcome,
)

RUN = ""
"""The name under which whole runs stand among their steps."""
_KEPT = 64
"""How many of each are remembered: old ones say little of now."""

Table = Mapping[str, Mapping[str, Spread]]
"""Of each pipeline, its steps and `RUN`."""


class Durations:
    """Remembers the last durations of this worker. Satisfies `observe.WorkObserver`."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], deque[float]] = {}

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """Time a run; one that had nothing left to it by others, and was completed, counts."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if outcome.state is RunEnd.COMPLETED and not claim.ended:
                self.note(claim.pipeline, RUN, time.perf_counter() - began)

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """Time a step; one that gave its result counts."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if outcome.state is StepEnd.COMPLETED:
                self.note(claim.pipeline, name, time.perf_counter() - began)

    def note(self, pipeline: str, step: str, seconds: float) -> None:
        """Remember how long it took."""
        self._seconds.setdefault((pipeline, step), deque(maxlen=_KEPT)).append(seconds)

    def table(self) -> Table:
        """What is remembered."""
        table: dict[str, dict[str, Spread]] = {}
        for (pipeline, step), seconds in self._seconds.items():
            table.setdefault(pipeline, {})[step] = _spread(sorted(seconds))
        return table

    def expected(self) -> str:
        """As `expected_runs`, of this worker's own."""
        return expected_runs(
            {p: {RUN: _spread(sorted(s))} for (p, step), s in self._seconds.items() if step == RUN}
        )


def _spread(ordered: list[float]) -> Spread:
    last = len(ordered) - 1
    p50, p90 = (round(ordered[round(last * share)] * 1e6) for share in (0.5, 0.9))
    return Spread(p50, p90, len(ordered))


def expected_runs(table: Table) -> str:
    """How long a run of each pipeline takes, as the store's scripts take it."""
    return ",".join(f"{name}={steps[RUN].p50}" for name, steps in table.items() if RUN in steps)


def joined(tables: Iterable[Table]) -> Table:
    """What several workers tell as one: each counts by how much it knows."""
    found: dict[str, dict[str, list[Spread]]] = {}
    for table in tables:
        for pipeline, steps in table.items():
            for step, spread in steps.items():
                found.setdefault(pipeline, {}).setdefault(step, []).append(spread)
    return {
        pipeline: {step: _mean(spreads) for step, spreads in steps.items()}
        for pipeline, steps in found.items()
    }


def usual_run(table: Table) -> Spread:
    """How long any run takes: each pipeline counts by how many runs it had lately."""
    return _mean([steps[RUN] for steps in table.values() if RUN in steps])


def _mean(spreads: list[Spread]) -> Spread:
    samples = sum(spread.samples for spread in spreads)
    p50, p90 = (sum(s[i] * s.samples for s in spreads) // max(samples, 1) for i in (0, 1))
    return Spread(p50, p90, samples)
