"""Runs one claimed run: every step as soon as its inputs exist, each kept as soon as it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from ..domain import Claim, FailureReason, ItemsChunk, Status, StepRecord, StepState, StepWork
from ..domain.errors import (
    HeadstartError,
    LeaseLost,
    StepsReported,
)
from ..pipeline.pipeline import Pipeline
from ..pipeline.step import Step
from ..values.limits import Limits
from .executors.executors import Executors
from .occupancy import begun, keeping, occupied_seconds
from .offers import makers_of
from .ports import ProgressSink
from .progress import ShownProgress
from .reported_steps import ReportedSteps
from .retry_pauses import Jitter, full_jitter
from .reuse import Reuse
from .settling import Settling
from .step_records import step_record
from .step_run import StepRunner
from .step_runs import StepsElsewhere, failure_in
from .upkeep import after_others
from .worker_observer import (
    StepOutcome,
    WorkObserver,
    WorkObservers,
)

log = logging.getLogger(__name__)

_SHOW_AFTER = 0.05
"""Seconds after which a new run's first steps are shown as running."""
_TURNS = 5
"""Turns of the loop before a write: steps that end together share it, and the next steps begin."""


async def run(
    claim: Claim,
    pipeline: Pipeline,
    providers: Mapping[str, Any],
    sink: ProgressSink,
    observer: WorkObserver | None = None,
    limits: Limits | None = None,
    reuse: Reuse | None = None,
    reports: ReportedSteps | None = None,
    executors: Executors | None = None,
    makers: Mapping[str, str] | None = None,
    elsewhere: StepsElsewhere | None = None,
    settling: Settling | None = None,
    jitter: Jitter = full_jitter,
) -> Status:
    """Run what is missing of `claim` and finish it, with each step watched by `observer`.

    A step that returns more than `limits` allow fails. Steps that `reuse` runs or remembers are not
    computed again. Results that `reports` names are taken from the callers that reported them.
    Its steps run in `executors`; without them in some of this run's own, where they may block.
    `makers` are those of the pipeline with these providers, for a caller that has them. Steps that
    other pools compute come from `elsewhere`; without it all are computed here. Steps begin when
    `settling` lets them. `jitter` returns the pause before a new try, of at most so many seconds.

    Returns the end status. Raises LeaseLost when the run was taken away, and StoreUnavailable when
    its progress cannot be kept. Raises ExecutorUnavailable when a step cannot run here and the run
    must be handed on. No step of it is then left running.
    """
    reuse = reuse or Reuse()
    watching = observer or WorkObservers()
    async with AsyncExitStack() as stack:
        if executors is None:
            executors = await stack.enter_async_context(Executors())
        if makers is None:
            makers = makers_of(pipeline, providers)
        settling = settling or Settling()
        steps = StepRunner(
            *(claim, pipeline, providers, makers, limits or Limits(), reuse, executors, sink),
            settling.awaited,
            jitter,
        )
        work = _Run(claim, pipeline, sink, watching, steps, settling, elsewhere)
        stack.enter_context(reuse.shared_steps.expecting(claim.lease.job.key, work.expected))
        return await work.to_end(reports or ReportedSteps())


class _Run:
    """The state of one run: which steps have which value, and which are still to start.

    A step starts as soon as its inputs exist; what is shown of it follows. Only one task at a time
    writes to the sink. What happens meanwhile goes with the next write, so no write overtakes
    another.
    """

    def __init__(
        self,
        claim: Claim,
        pipeline: Pipeline,
        sink: ProgressSink,
        observer: WorkObserver,
        steps: StepRunner,
        settling: Settling,
        elsewhere: StepsElsewhere | None,
    ) -> None:
        self._elsewhere = elsewhere
        self._claim = claim
        self._lease = claim.lease
        self._observer = observer
        self._pipeline = pipeline
        self._sink = sink
        keeping(len(claim.inputs) + sum(len(each.fragment) for each in claim.ended.values()))
        self._steps = steps
        self._settling = settling
        self._digests = steps.digests
        self._progress = ShownProgress(self._show)
        settling.begin(claim, pipeline, steps.now_us, steps.is_under_way)
        self._settled = set(claim.ended)
        self._states = {name: record.state for name, record in claim.ended.items()}
        self._waiting = [name for name in self._digests if name not in claim.ended]
        self._running: set[str] = set()
        self._unshown: list[str] = []
        self._unwritten: list[StepRecord] = []
        self._failures: dict[str, tuple[str, FailureReason]] = {}
        self._reported: set[str] = set()
        self._finished = False
        self._starts: dict[str, int] = {}
        self._writing = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def expected(self) -> Collection[str]:
        """The digests of the steps that it can take over from an earlier revision."""
        return [] if self._claim.fresh else self._digests.values()

    @property
    def _failure(self) -> tuple[str, FailureReason] | None:
        """Why the run has failed, if it has."""
        return next(iter(self._failures.values()), None)

    async def to_end(self, reports: ReportedSteps) -> Status:
        try:
            with reports.receiving(self._take_reported):
                async with asyncio.TaskGroup() as self._group:
                    self._advance(self._group)
                    if self._unshown:
                        # A step that ends sooner is never shown as running: that saves a write.
                        await asyncio.wait(
                            self._tasks.values(),
                            timeout=_SHOW_AFTER,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                    begun()
                    await self._write()
        except BaseException as error:
            for record in self._unwritten:
                self._steps.count_stopped(record)
            if not isinstance(error, BaseExceptionGroup):
                raise
            expected = error.subgroup(HeadstartError)
            if expected is None:
                raise
            # The first error has cancelled all other tasks.
            raise expected.exceptions[0] from None
        finally:
            self._progress.end()
        return Status.FAILED if self._failure else Status.COMPLETED

    async def _one(self, group: asyncio.TaskGroup, step: Step) -> None:
        outcome = StepOutcome()
        began = time.monotonic()
        with self._observer.step(self._claim, step.name, outcome):
            record, value = await self._steps.run(
                *(step, self._starts[step.name], outcome, self._keep_items),
                partial(self._progress.note, step.name),
            )
        if self._tasks.get(step.name) is not asyncio.current_task():
            return  # a reported result has replaced this step, but its task did not stop
        record = replace(record, work=_work(outcome, time.monotonic() - began))
        self._steps.keep(record, value)
        keeping(len(record.fragment))
        self._running.discard(step.name)
        self._states[step.name] = record.state
        self._unwritten.append(record)
        if record.state is not StepState.COMPLETED:
            reason = outcome.failure_reason or FailureReason.INTERNAL
            self._fail_if_required(step, outcome.error, reason)
        self._advance(group)
        await self._write()

    async def _write(self) -> None:
        """Write what ended and what runs now; end the run when nothing does."""
        async with self._writing:
            await after_others(_TURNS)
            while not self._finished:
                ended, self._unwritten = self._unwritten, []
                shown = [name for name in dict.fromkeys(self._unshown) if name in self._running]
                self._unshown = []
                try:
                    await self._write_now(ended, shown)
                except StepsReported as taken:
                    # The store wrote nothing. The next attempt writes what this run still computes.
                    self._unwritten[:0] = ended
                    self._unshown[:0] = shown
                    self._adopt(taken.records)
                except LeaseLost:
                    self._unwritten[:0] = ended
                    raise
                else:
                    return

    async def _write_now(self, ended: list[StepRecord], shown: list[str]) -> None:
        if self._failure or not self._running:
            await self._finish(ended)
            self._finished = True
            for task in self._tasks.values():
                if task is not asyncio.current_task():
                    task.cancel()
            return
        # The store refuses to show a reported step as running, and returns its result: so show it.
        reported, self._reported = self._reported - self._states.keys(), set()
        shown = [*shown, *reported.difference(shown)]
        if ended or shown:
            running = [
                self._steps.shown(name, self._starts.get(name, 0), self._progress.latest.get(name))
                for name in shown
            ]
            await self._sink.commit(self._lease, ended, running)

    async def _keep_items(self, chunk: ItemsChunk) -> None:
        """Keep items of a step that runs, unless the run or the step has ended."""
        async with self._writing:
            if not self._finished and chunk.step in self._running:
                await self._sink.keep_items(self._lease, chunk)

    async def _finish(self, ended: list[StepRecord]) -> None:
        slot = occupied_seconds()
        if self._failure:
            ended = [*ended, *self._abandoned()]
            await self._sink.finish(self._lease, ended, Status.FAILED, *self._failure, slot)
        else:
            await self._sink.finish(self._lease, ended, Status.COMPLETED, "", None, slot)

    def _take_reported(self, steps: Sequence[str]) -> None:
        """Callers have reported these steps: take them as soon as the write under way is over."""
        self._reported.update(name for name in steps if name in self._digests)
        self._write_soon("reports")

    def _show(self, step: str) -> None:
        """Write how far a running step has come."""
        if step in self._running:
            self._unshown.append(step)
            self._write_soon("progress")

    def _write_soon(self, why: str) -> None:
        writing = self._write()
        try:
            self._group.create_task(writing, name=f"{self._lease.job.key} {why}")
        except RuntimeError:  # the run is being stopped
            writing.close()

    def _adopt(self, records: Sequence[StepRecord]) -> None:
        """Go on with results that callers have reported, and redo what was made of our own."""
        taken = {record.name: record for record in records}
        self._steps.take_over(records)
        self._settled |= taken.keys()
        # No dependant was written yet: a step is written before its dependants, or with them.
        undone = self._pipeline.dependants(taken) - self._settled
        self._steps.forget(undone)
        for name in undone | taken.keys():
            task = self._tasks.pop(name, None)
            if task is not None and name in self._running:
                task.cancel()
            self._running.discard(name)
            self._states.pop(name, None)
            self._failures.pop(name, None)
        self._unwritten = [r for r in self._unwritten if r.name not in undone | taken.keys()]
        self._states |= {name: record.state for name, record in taken.items()}
        for record in records:
            if failure := failure_in(record):
                self._fail_if_required(self._pipeline.by_name[record.name], *failure)
        settled = self._states.keys() | self._running
        self._waiting = [name for name in self._digests if name not in settled]
        self._advance(self._group)

    def _advance(self, group: asyncio.TaskGroup) -> None:
        """Start every step that can start now, and skip every one that never can."""
        still_waiting = []
        for name in self._waiting:  # in dependency order, so one pass settles chains of skips
            step = self._pipeline.by_name[name]
            states = {need: self._states.get(need) for need in self._pipeline.hard_needs(step)}
            lost = [n for n, s in states.items() if s in (StepState.FAILED, StepState.SKIPPED)]
            if lost:
                error, reason = f"{lost[0]} has no result", FailureReason.NEED_FAILED
                self._states[name] = StepState.SKIPPED
                self._unwritten.append(
                    step_record(name, StepState.SKIPPED, error=error, failure_reason=reason)
                )
                self._fail_if_required(step, error, reason)
            elif (
                not self._failure  # the run ends now
                and all(state is StepState.COMPLETED for state in states.values())
                and self._have_ended(self._pipeline.soft_needs(step))
            ):
                self._running.add(name)
                settles = self._settling.left(step) > 0
                if not settles:
                    self._begin(step)
                work = self._work_on(step, group, settles=settles)
                task = group.create_task(work, name=f"{self._lease.job.key} {name}")
                self._tasks[name] = task
            else:
                still_waiting.append(name)
        self._waiting = still_waiting

    def _have_ended(self, names: Collection[str]) -> bool:
        """Whether these steps have ended, in whatever way, or the run does not have them."""
        return all(name in self._states for name in names if name in self._digests)

    def _begin(self, step: Step) -> None:
        """Note that a step begins, which is shown with the next write if it runs here."""
        if not self._is_elsewhere(step):
            self._unshown.append(step.name)
        self._starts[step.name] = self._steps.now_us()

    def _is_elsewhere(self, step: Step) -> bool:
        return self._elsewhere is not None and self._elsewhere.computes(self._pipeline, step)

    async def _work_on(self, step: Step, group: asyncio.TaskGroup, *, settles: bool) -> None:
        """Compute a step here, or have it computed by workers of its pool."""
        if settles:
            await self._settling.over(step)
            self._begin(step)
            self._write_soon("settled")
        if self._elsewhere is not None and self._is_elsewhere(step):
            await self._compute_elsewhere(step, self._elsewhere)
        else:
            await self._one(group, step)

    async def _compute_elsewhere(self, step: Step, elsewhere: StepsElsewhere) -> None:
        """Have a step computed by workers of its pool, until its result is reported."""
        await self._write()  # they read what it needs from the store
        digest, needs = self._digests[step.name], self._pipeline.marked_needs(step)
        await elsewhere.report(self._claim, step, digest, needs, self._take_reported)

    def _fail_if_required(self, step: Step, error: str, reason: FailureReason) -> None:
        if step.required:
            self._failures[step.name] = f"{step.name}: {error}", reason

    def _abandoned(self) -> list[StepRecord]:
        """What will never end because a required step failed."""
        return [
            step_record(
                name,
                StepState.SKIPPED,
                error="a required step failed",
                failure_reason=FailureReason.RUN_FAILED,
            )
            for name in self._digests
            if name not in self._states
        ]


def _work(outcome: StepOutcome, took: float) -> StepWork | None:
    """Return the work that was done for a step here; None when another run's work was shared.

    Costs count once, for the first run that waited for them.
    """
    cpu_seconds, llm_tokens = outcome.meter.cpu_seconds, outcome.meter.llm_tokens
    if not outcome.memoised:
        return StepWork(took, cpu_seconds, llm_tokens)
    return StepWork(0.0, cpu_seconds, llm_tokens) if cpu_seconds or llm_tokens else None
