"""Records how long runs and their steps took lately, in one worker and in all of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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
SLOT = "*"
"""The name under which the time stands for which a run has a slot."""
PROVIDERS = ""
"""The pipeline under which the present waits for providers stand, by the parameter's name."""
_KEPT = 64
"""How many of each are kept: old ones do not describe the present."""

Table = Mapping[str, Mapping[str, Spread]]
"""Of each pipeline, its steps, `RUN` and `SLOT`; and `PROVIDERS`."""


class Durations:
    """Keeps the last durations of this worker. Satisfies `worker_observer.WorkObserver`."""

    def __init__(self, waits: Callable[[], Mapping[str, float]] = dict) -> None:
        """`waits` returns how long a call of each provider waits now, in seconds."""
        self._waits = waits
        self._seconds: dict[tuple[str, str], deque[float]] = {}
        self._spreads: dict[tuple[str, str], Spread] = {}

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """Time a run. It counts if it completed and no other worker had begun it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if outcome.state is RunEnd.COMPLETED and not claim.ended and not claim.step:
                took, in_slot = time.perf_counter() - began, outcome.slot_seconds
                # A caller that waits ends the settling, so no estimate has it.
                took = max(0.0, took - outcome.settled_seconds)
                self.note(claim.pipeline, RUN, took)
                self.note(claim.pipeline, SLOT, took if in_slot is None else in_slot)

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """Time a step, without its wait for providers. It counts if it gave its result."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if outcome.state is StepEnd.COMPLETED:
                took = time.perf_counter() - began - outcome.meter.waited
                self.note(claim.pipeline, name, max(0.0, took))

    def note(self, pipeline: str, step: str, seconds: float) -> None:
        """Keep how many seconds it took."""
        self._seconds.setdefault((pipeline, step), deque(maxlen=_KEPT)).append(seconds)
        self._spreads.pop((pipeline, step), None)

    def table(self) -> Table:
        """Return what is kept."""
        table: dict[str, dict[str, Spread]] = {}
        for pipeline, step in self._seconds:
            table.setdefault(pipeline, {})[step] = self._spread_of(pipeline, step)
        waits = {name: _spread([seconds]) for name, seconds in self._waits().items() if seconds}
        return table | {PROVIDERS: waits} if waits else table

    def expected(self) -> Mapping[str, int]:
        """Return `expected_runs` of this worker's own durations."""
        return self._medians(RUN)

    def costs(self) -> Mapping[str, int]:
        """Return how long a run of each pipeline has a slot: its median, in microseconds."""
        return self._medians(SLOT)

    def _medians(self, of: str) -> Mapping[str, int]:
        return {p: self._spread_of(p, step).p50 for p, step in self._seconds if step == of}

    def _spread_of(self, pipeline: str, step: str) -> Spread:
        """Return a spread; each claim asks for them, so it is kept until the next duration."""
        spread = self._spreads.get((pipeline, step))
        if spread is None:
            spread = _spread(sorted(self._seconds[pipeline, step]))
            self._spreads[pipeline, step] = spread
        return spread


def _spread(ordered: list[float]) -> Spread:
    last = len(ordered) - 1
    p50, p90 = (round(ordered[round(last * share)] * 1e6) for share in (0.5, 0.9))
    return Spread(p50, p90, len(ordered))


def expected_runs(table: Table) -> Mapping[str, int]:
    """Return how long a run of each pipeline takes: its median, in microseconds."""
    return {name: steps[RUN].p50 for name, steps in table.items() if RUN in steps}


def joined(tables: Iterable[Table]) -> Table:
    """Merge the tables of several workers. Each counts by its number of measurements."""
    found: dict[str, dict[str, list[Spread]]] = {}
    for table in tables:
        for pipeline, steps in table.items():
            for step, spread in steps.items():
                found.setdefault(pipeline, {}).setdefault(step, []).append(spread)
    return {
        pipeline: {step: _mean(spreads) for step, spreads in steps.items()}
        for pipeline, steps in found.items()
    }


def usual_slot(table: Table) -> Spread:
    """Return how long any run has a slot. Each pipeline counts by its number of recent runs."""
    return _mean([steps[SLOT] for steps in table.values() if SLOT in steps])


def _mean(spreads: list[Spread]) -> Spread:
    samples = sum(spread.samples for spread in spreads)
    p50, p90 = (sum(s[i] * s.samples for s in spreads) // max(samples, 1) for i in (0, 1))
    return Spread(p50, p90, samples)
