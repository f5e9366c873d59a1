"""Runs one claimed run: every step as soon as its inputs exist, each kept as soon as it ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from headstart.v1 import precompute_pb2 as pb

from ..domain import Claim, Status, StepRecord, StepState, StepWork
from ..domain.errors import (
    HeadstartError,
    PlaceUnavailable,
    StepFailed,
    StepsReported,
)
from ..pipeline.pipeline import Pipeline
from ..pipeline.step import Step
from ..values.fragments import report_fragment, result_of
from ..values.limits import Limits, encoded
from .arguments import Arguments
from .cost_meter import METER
from .executors.executors import Places
from .offers import makers_of
from .ports import ProgressSink
from .reasons import failure_of, readable
from .reported_steps import Reports
from .reuse import Landed, Reuse
from .step_deadline import end_in
from .worker_observer import (
    FailedTry,
    StepEnd,
    StepOutcome,
    WorkObserver,
    WorkObservers,
)

log = logging.getLogger(__name__)

_LAST_CLAIM = 5
"""The claim of a run from which on a step that its place is lost with counts as failed."""
_SHOW_AFTER = 0.005
"""Seconds after which a new run's first steps are shown as running."""


async def run(
    claim: Claim,
    pipeline: Pipeline,
    providers: Mapping[str, Any],
    ledger: ProgressSink,
    observer: WorkObserver | None = None,
    limits: Limits | None = None,
    reuse: Reuse | None = None,
    reports: Reports | None = None,
    places: Places | None = None,
    makers: Mapping[str, str] | None = None,
) -> Status:
    """Run what is missing of `claim` and finish it, with each step watched by `observer`.

    A step that returns more than `limits` allow fails. What is under way or remembered in `reuse`
    is not computed again, and steps of which `reports` tells are taken from their callers.
    Its steps run in `places`; without them in some of this run's own, where they may block.
    `makers` are those of the pipeline with these providers, for a caller that has them.

    Returns the end status. Raises LeaseLost when the run was taken away, StoreUnavailable when its
    progress cannot be kept, PlaceUnavailable when it must be handed on, because a step cannot run
    here; no step of it is then left running.
    """
    reuse = reuse or Reuse()
    watching = observer or WorkObservers()
    async with AsyncExitStack() as stack:
        if places is None:
            places = await stack.enter_async_context(Places())
        if makers is None:
            makers = makers_of(pipeline, providers)
        work = _Run(
            claim, pipeline, providers, makers, ledger, watching, limits or Limits(), reuse, places
        )
        stack.enter_context(reuse.flights.expecting(claim.lease.job.key, work.expected))
        return await work.to_end(reports or Reports())


class _Run:
    """The state of one run: which steps have which value, and which are still to start.

    A step starts as soon as its inputs exist; what is shown of it follows. Only one task at a time
    writes to the ledger. What happens meanwhile is gathered and goes with the next write, so no
    write can overtake another.
    """

    def __init__(
        self,
        claim: Claim,
        pipeline: Pipeline,
        providers: Mapping[str, Any],
        makers: Mapping[str, str],
        ledger: ProgressSink,
        observer: WorkObserver,
        limits: Limits,
        reuse: Reuse,
        places: Places,
    ) -> None:
        self._claim = claim
        self._limits = limits
        self._lease = claim.lease
        self._observer = observer
        self._reuse = reuse
        self._places = places
        self._pipeline = pipeline
        self._makers = makers
        self._ledger = ledger
        self._inputs = pipeline.inputs.model_validate_json(claim.inputs)
        self._digests = pipeline.step_digests(self._inputs)
        self._kept = dict(claim.ended)
        self._settled = set(claim.ended)
        self._states = {name: record.state for name, record in claim.ended.items()}
        self._arguments = Arguments(
            pipeline, self._inputs, len(claim.inputs), self._digests, providers
        )
        self._waiting = [name for name in self._digests if name not in claim.ended]
        self._running: set[str] = set()
        self._unshown: list[str] = []
        self._unwritten: list[StepRecord] = []
        self._failures: dict[str, str] = {}
        self._reported: set[str] = set()
        self._finished = False
        self._began = time.monotonic()
        self._starts: dict[str, int] = {}
        self._writing = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def expected(self) -> Collection[str]:
        """The digests of the steps that it can take over from an earlier revision."""
        return [] if self._claim.fresh else self._digests.values()

    @property
    def _failure(self) -> str:
        """Why the run has failed, if it has."""
        return next(iter(self._failures.values()), "")

    async def to_end(self, reports: Reports) -> Status:
        try:
            with reports.told_to(self._hear):
                async with asyncio.TaskGroup() as self._group:
                    self._advance(self._group)
                    if self._running:
                        # A step that ends sooner is never shown as running: that saves a write.
                        await asyncio.wait(
                            self._tasks.values(),
                            timeout=_SHOW_AFTER,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                    await self._write()
        except BaseExceptionGroup as errors:
            expected = errors.subgroup(HeadstartError)
            if expected is None:
                raise
            # The first one cancelled the rest.
            raise expected.exceptions[0] from None
        return Status.FAILED if self._failure else Status.COMPLETED

    async def _one(self, group: asyncio.TaskGroup, step: Step) -> None:
        outcome = StepOutcome()
        began = time.monotonic()
        with self._observer.step(self._claim, step.name, outcome):
            record, value = await self._shared(step, outcome)
            if record.state is StepState.COMPLETED:
                record = self._admitted(record, outcome)
        if self._tasks.get(step.name) is not asyncio.current_task():
            return  # it was to stop, since another result was taken, and did not
        record = replace(record, work=_work(outcome, time.monotonic() - began))
        self._kept[step.name] = record
        if value is not None and record.state is StepState.COMPLETED:
            self._arguments.keep(step.name, record.fragment, value)
        self._running.discard(step.name)
        self._states[step.name] = record.state
        self._unwritten.append(record)
        if record.state is not StepState.COMPLETED:
            self._fail_if_required(step, outcome.error)
        self._advance(group)
        await self._write()

    async def _write(self) -> None:
        """Write what ended and what runs now; end the run when nothing does."""
        async with self._writing:
            while not self._finished:
                ended, self._unwritten = self._unwritten, []
                shown = [name for name in self._unshown if name in self._running]
                self._unshown = []
                try:
                    await self._write_now(ended, shown)
                except StepsReported as taken:
                    # Nothing was written. What is still ours goes with the next attempt.
                    self._unwritten[:0] = ended
                    self._unshown[:0] = shown
                    self._adopt(taken.records)
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
        # Showing a step that was reported is refused with its result: so it is asked for.
        reported, self._reported = self._reported - self._states.keys(), set()
        shown = [*shown, *reported.difference(shown)]
        if ended or shown:
            running = [
                _record(name, StepState.RUNNING, started_us=self._starts.get(name, 0))
                for name in shown
            ]
            await self._ledger.commit(self._lease, ended, running)

    async def _finish(self, ended: list[StepRecord]) -> None:
        if self._failure:
            ended = [*ended, *self._abandoned()]
            await self._ledger.finish(self._lease, ended, Status.FAILED, self._failure)
        else:
            await self._ledger.finish(self._lease, ended, Status.COMPLETED, "")

    def _hear(self, steps: Sequence[str]) -> None:
        """Callers have reported these steps: take them as soon as the write under way is over."""
        self._reported.update(name for name in steps if name in self._digests)
        writing = self._write()
        try:
            self._group.create_task(writing, name=f"{self._lease.job.key} reports")
        except RuntimeError:  # the run is being stopped
            writing.close()

    def _adopt(self, records: Sequence[StepRecord]) -> None:
        """Go on with results that callers have reported, and redo what was made of our own."""
        taken = {record.name: record for record in records}
        self._kept |= taken
        self._settled |= taken.keys()
        # None of it was written: a step is written before, or with, what was made of it.
        undone = self._pipeline.dependants(taken) - self._settled
        for name in undone | taken.keys():
            task = self._tasks.pop(name, None)
            if task is not None and name in self._running:
                task.cancel()
            self._running.discard(name)
            self._states.pop(name, None)
            self._failures.pop(name, None)
        self._unwritten = [r for r in self._unwritten if r.name not in undone | taken.keys()]
        self._states |= {name: record.state for name, record in taken.items()}
        settled = self._states.keys() | self._running
        self._waiting = [name for name in self._digests if name not in settled]
        self._advance(self._group)

    def _advance(self, group: asyncio.TaskGroup) -> None:
        """Start every step that can start now, and skip every one that never can."""
        still_waiting = []
        for name in self._waiting:  # in dependency order, so one pass settles chains of skips
            step = self._pipeline.by_name[name]
            states = {need: self._states.get(need) for need in self._pipeline.needs(step)}
            lost = [n for n, s in states.items() if s in (StepState.FAILED, StepState.SKIPPED)]
            if lost:
                reason = f"{lost[0]} has no result"
                self._states[name] = StepState.SKIPPED
                self._unwritten.append(_record(name, StepState.SKIPPED, error=reason))
                self._fail_if_required(step, reason)
            elif all(state is StepState.COMPLETED for state in states.values()):
                self._running.add(name)
                self._unshown.append(name)
                self._starts[name] = self._now_us()
                task = group.create_task(
                    self._one(group, step), name=f"{self._lease.job.key} {name}"
                )
                self._tasks[name] = task
            else:
                still_waiting.append(name)
        self._waiting = still_waiting

    def _now_us(self) -> int:
        """By the store's clock, as it stood at the claim: this machine's own may be off."""
        return self._claim.at_us + round((time.monotonic() - self._began) * 1e6)

    def _fail_if_required(self, step: Step, reason: str) -> None:
        if step.required:
            self._failures[step.name] = f"{step.name}: {reason}"

    def _abandoned(self) -> list[StepRecord]:
        """What will never end because a required step failed."""
        return [
            _record(name, StepState.SKIPPED, error="a required step failed")
            for name in self._digests
            if name not in self._states
        ]

    async def _shared(self, step: Step, outcome: StepOutcome) -> tuple[StepRecord, Any]:
        """A step's record: computed here, taken over from an earlier revision, or memoised.

        Beside it the value, if it was computed here.
        """
        run, digest, fresh = self._lease.job.key, self._digests[step.name], self._claim.fresh
        memo = self._memo_digest(step) if step.memo else ""

        async def work(outcome: StepOutcome) -> Landed:
            if memo and not fresh:
                result = await self._remembered(step, memo)
                if result is not None:
                    outcome.state, outcome.attempts = StepEnd.COMPLETED, 0
                    return Landed(run, None, result)
            record, value = await self._attempt(step, outcome)
            if memo and record.state is StepState.COMPLETED:
                result = result_of(record.fragment)
                await self._reuse.memos.memo_put(run.namespace, memo, result)
            return Landed(run, record, value=value)

        # What was begun with another result of a step that is not pure is other work.
        needed = (self._kept[name].fragment for name in self._pipeline.needs(step))
        key = (run.namespace, memo) if memo else (run, digest, *needed)
        landed: Landed = await self._reuse.flights.share(
            key, run, digest, outcome, work, fresh=fresh
        )
        if landed.record is not None and landed.run == run:
            return landed.record, landed.value
        outcome.memoised = True
        return self._memoised(step, landed, outcome), None

    def _admitted(self, record: StepRecord, outcome: StepOutcome) -> StepRecord:
        """The record, or that of a failure when it is more than this run has room for.

        Others who share the step, or remember it, may have room.
        """
        held = sum(len(kept.fragment) for kept in self._kept.values())
        try:
            self._limits.admit(held, len(record.fragment))
        except StepFailed as failure:
            outcome.state, outcome.error = StepEnd.FAILED, str(failure)
            started = self._starts[record.name]
            elapsed = (self._now_us() - started) / 1e6
            return _record(
                record.name, StepState.FAILED, b"", elapsed, outcome.attempts, str(failure), started
            )
        return record

    def _memo_digest(self, step: Step) -> str:
        needed = {name: result_of(self._kept[name].fragment) for name in self._pipeline.needs(step)}
        own, maker = self._digests[step.name], self._makers.get(step.name, "")
        return self._pipeline.memo_digest(step, self._inputs, own, maker, needed)

    async def _remembered(self, step: Step, memo: str) -> bytes | None:
        """The result that is remembered, if there is one that this worker can read."""
        result = await self._reuse.memos.memo_get(self._lease.job.key.namespace, memo)
        if result is not None:
            try:
                self._pipeline.codec.decode(step.name, result)
            except Exception as error:  # noqa: BLE001  # whatever a codec raises for what is not its own
                log.warning("a memo of %s is left: %s", step.name, type(error).__name__)
                return None
        return result

    def _memoised(self, step: Step, landed: Landed, outcome: StepOutcome) -> StepRecord:
        """What another run has computed, as this one keeps it."""
        state, result, attempts = StepState.COMPLETED, landed.remembered, 0
        origin = pb.STEP_ORIGIN_MEMOISED
        if landed.record is not None:
            state, result = landed.record.state, result_of(landed.record.fragment)
        if state is not StepState.COMPLETED:
            attempts, origin = outcome.attempts, pb.STEP_ORIGIN_UNSPECIFIED
        started = self._starts[step.name]
        report = report_fragment(
            step.name,
            state,
            error=outcome.error,
            elapsed=(self._now_us() - started) / 1e6,
            attempts=attempts,
            started_us=started,
            origin=origin,
        )
        return StepRecord(step.name, state, result + report)

    async def _attempt(self, step: Step, outcome: StepOutcome) -> tuple[StepRecord, Any]:
        """Run a step until it succeeds or may not be tried again; never raises what it raised.

        Gives its record, and its value if other steps take it. Raises PlaceUnavailable, with no try
        charged.
        """
        METER.set(outcome.meter)  # its task is the flight's alone: nothing to put back
        began, started = time.monotonic(), self._starts[step.name]
        error = ""
        for attempt in range(1, step.max_attempts + 1):
            retry = True
            outcome.attempts = attempt
            limit = asyncio.timeout(None)
            try:
                await self._places.ready(step)
                async with limit:
                    arguments = await self._arguments.of(step, self._kept)
                    begin = partial(_begin, step.timeout, limit)
                    value = await self._places.call(step, arguments, outcome.meter, begin)
                codec = self._pipeline.codec
                needed = self._arguments.needs(step.name)
                value, result = await encoded(codec, step.name, value, self._limits, needed=needed)
            except GeneratorExit:
                raise  # this coroutine is closed: a step's own comes as an error, see `StepRaised`
            except PlaceUnavailable as failure:
                # A step that brings its place down must not do so for ever.
                if not failure.began or self._lease.attempt < _LAST_CLAIM:
                    raise
                error = readable(failure)
            except BaseException as failure:
                if outcome.unwanted:
                    # Whatever the step has made of its cancellation.
                    raise asyncio.CancelledError from failure
                error, retry = self._reason(step, failure, limit)
            else:
                outcome.state = StepEnd.COMPLETED
                elapsed = time.monotonic() - began
                record = _record(
                    step.name, StepState.COMPLETED, result, elapsed, attempt, started_us=started
                )
                return record, value
            outcome.tried.append(FailedTry(time.time_ns(), error))
            if not retry or attempt == step.max_attempts:
                break
            await asyncio.sleep(step.backoff * 2 ** (attempt - 1))
        outcome.state, outcome.error = StepEnd.FAILED, error
        elapsed = time.monotonic() - began
        return _record(step.name, StepState.FAILED, b"", elapsed, attempt, error, started), None

    def _reason(
        self, step: Step, failure: BaseException, limit: asyncio.Timeout
    ) -> tuple[str, bool]:
        """What callers may read of an error, and whether the step may be tried again.

        Of an error that a step did not raise on purpose an id, never its text: that may hold
        anything. A cancellation that comes out of a step which nobody has cancelled, from a future
        that it shares, is an error like others.
        """
        failed = failure_of(failure)
        if failed is not None:
            if failed is not failure:
                log.info("%s %s failed", self._lease.job.key, step.name, exc_info=failure)
            return readable(failed), failed.retry
        if isinstance(failure, TimeoutError) and limit.expired():
            return f"took longer than {step.timeout:g} s", True
        error = f"internal error {uuid.uuid4().hex[:12]}"
        log.error("%s %s: %s", self._lease.job.key, step.name, error, exc_info=failure)
        return error, True


def _begin(seconds: float, limit: asyncio.Timeout) -> None:
    """Let a try's time begin: what it has waited for its place is not the step's own."""
    limit.reschedule(asyncio.get_running_loop().time() + seconds)
    end_in(seconds)


def _record(
    name: str,
    state: StepState,
    result: bytes = b"",
    elapsed: float | None = None,
    attempts: int = 0,
    error: str = "",
    started_us: int = 0,
) -> StepRecord:
    report = report_fragment(
        name, state, error=error, elapsed=elapsed, attempts=attempts, started_us=started_us
    )
    return StepRecord(name, state, result + report)


def _work(outcome: StepOutcome, took: float) -> StepWork | None:
    """What was done for a step here; None for one whose work is another run's.

    Costs are told once, to the first who waited for it, be it that other run.
    """
    cpu_seconds, llm_tokens = outcome.meter.cpu_seconds, outcome.meter.llm_tokens
    if not outcome.memoised:
        return StepWork(took, cpu_seconds, llm_tokens)
    return StepWork(0.0, cpu_seconds, llm_tokens) if cpu_seconds or llm_tokens else None
