"""Tells of a run that has not ended when each of its steps will have."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ...domain import Snapshot, StepState, WorkerState
from ...domain.errors import StoreUnavailable
from ...pipeline.pipeline import Pipeline
from ...pipeline.registry import Registry
from ...pipeline.step import Step
from ...values.fragments import items_of, started_of
from ...worker.durations import (
    PROVIDERS,
    Table,
    expected_runs,
    joined,
    usual_slot,
)

log = logging.getLogger(__name__)

FRESH = 5.0
"""Seconds for which the durations that workers reported are used without another read."""
_WORKERS = 1000
"""Of how many workers at most."""
_OVERDUE = 0.1
"""Of what a step takes as a rule: how much longer one is given that has had all of that."""


class Estimate(NamedTuple):
    """In how long a step ends, in microseconds."""

    p50: int
    p90: int


ReadWorkers = Callable[[int], Awaitable[Sequence[WorkerState]]]
"""Returns what up to so many workers have registered. Raises StoreUnavailable."""


class Estimates:
    """Knows how long steps take, from what workers report; reads that when an answer needs it.

    No caller waits for that: an answer has no estimate while nothing is known.
    """

    def __init__(self, workers: ReadWorkers, registry: Registry, partitions: int) -> None:
        """Read what workers registered by `workers`, which may raise StoreUnavailable."""
        self._workers = workers
        self._registry = registry
        self._partitions = partitions
        self._table: Table = {}
        self._runs: Mapping[str, int] = {}
        self._slots: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        self._refreshed = -FRESH
        self._asking: asyncio.Task[None] | None = None

    def refresh(self) -> None:
        """Ask the workers, unless that was done lately."""
        now = asyncio.get_running_loop().time()
        if self._asking is None and now - self._refreshed >= FRESH:
            self._asking = asyncio.create_task(self.ask(), name="durations")

    async def ask(self) -> None:
        """Read what the workers report; an outage is logged and forgets nothing."""
        self._refreshed = asyncio.get_running_loop().time()
        try:
            workers = await self._workers(_WORKERS)
            # Without a worker, the last durations are still the best guess.
            self._table = joined(worker.durations for worker in workers) or self._table
            self._runs = expected_runs(self._table)
            self._slots = _by_pool(workers, lambda worker: worker.slots)
            self._busy = _by_pool(workers, lambda worker: worker.busy)
        except StoreUnavailable as error:
            log.debug("no durations: %s", error)
        finally:
            self._asking = None

    async def aclose(self) -> None:
        """End what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def expected(self) -> Mapping[str, int]:
        """Return how long a run of each pipeline takes, in microseconds."""
        self.refresh()
        return self._runs

    def of(self, snapshot: Snapshot) -> Mapping[str, Estimate]:
        """In how long each step that has not ended ends; without those of which it is not known."""
        self.refresh()
        took = self._table.get(snapshot.summary.pipeline)
        pipeline = self._registry.find(snapshot.summary.pipeline)
        if snapshot.summary.status.ended or pipeline is None:
            return {}
        took = took or {}
        begins = self._turn(snapshot, pipeline.pool)
        now_us = snapshot.summary.expires_us - round(snapshot.lives_for * 1e6)
        unserved = {each.step for each in snapshot.summary.unserved_steps}
        found: dict[str, Estimate] = {}
        for name in pipeline.order:
            state = snapshot.states.get(name)
            if state is None or state.ended or name in unserved:
                continue
            if (by_items := self._by_items(pipeline.by_name[name], snapshot)) is not None:
                found[name] = by_items
                continue
            if name not in took:
                continue
            spread, wait = took[name], self._wait(pipeline, pipeline.by_name[name])
            if state is StepState.RUNNING:
                had = max(now_us - started_of(name, snapshot.running[name]), 0)
                p50, p90 = (_left(spread[i] + wait[i], had) for i in (0, 1))
                found[name] = Estimate(p50, p90)
                continue
            needs = pipeline.needs(pipeline.by_name[name])
            missing = [n for n in needs if n in snapshot.states and not snapshot.states[n].ended]
            if begins is not None and all(need in found for need in missing):
                first = [begins, *(found[need] for need in missing)]
                p50, p90 = (max(each[i] for each in first) + wait[i] + spread[i] for i in (0, 1))
                found[name] = Estimate(p50, p90)
        return found

    def _by_items(self, step: Step, snapshot: Snapshot) -> Estimate | None:
        """In how long a step ends that runs for each item of a list, by the items so far."""
        if not step.each or step.name not in snapshot.running:
            return None
        items = items_of(step.name, snapshot.running[step.name])
        left = items.total - items.completed - items.failed
        if not items.HasField("estimate") or not left:
            return None
        turns = -(-left // step.parallel)
        p50, p90 = (t.ToMicroseconds() for t in (items.estimate.p50, items.estimate.p90))
        # Slow items take turns beside quick ones: only the last turn waits for a slow one.
        return Estimate(turns * p50, (turns - 1) * p50 + p90)

    def _wait(self, pipeline: Pipeline, step: Step) -> Estimate:
        """In how long it is the turn of the step's calls at its providers, as workers report."""
        waits = self._table.get(PROVIDERS, {})
        keys = map(pipeline.provider_key, step.parameters)
        needed = [waits[key] for key in keys if key in waits]
        return Estimate(*(max((each[i] for each in needed), default=0) for i in (0, 1)))

    def _turn(self, snapshot: Snapshot, pool: str) -> Estimate | None:
        """In how long a worker of this pool takes the run; None when there is none for it."""
        if snapshot.ahead is None:
            return Estimate(0, 0)
        slots, busy = self._slots[pool], self._busy[pool]
        if not slots or snapshot.summary.lacks is not None:
            return None
        # Partitions fill and drain alike: each of the others has about as many jobs before this
        # one.
        ahead = snapshot.ahead * self._partitions + (busy >= slots)
        slot = usual_slot(self._table)
        p50, p90 = (round(ahead * each / slots) for each in slot[:2])
        return Estimate(p50, p90)


def _by_pool(workers: Sequence[WorkerState], count: Callable[[WorkerState], int]) -> Counter[str]:
    """Add up a figure of the workers of each pool; a worker of several counts in each."""
    found: Counter[str] = Counter()
    for worker in workers:
        for pool in worker.pools:
            found[pool] += count(worker)
    return found


def _left(takes: int, had: int) -> int:
    return max(takes - had, round(takes * _OVERDUE))
