"""Runs one step of a run: its attempts, and the results that it can take over instead."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from headstart.v1 import precompute_pb2 as pb

from ..domain import Claim, FailureReason, Progress, StepRecord, StepState, StepWork
from ..domain.errors import ExecutorUnavailable, StepFailed
from ..pipeline.each import ItemDigests
from ..pipeline.pipeline import Pipeline
from ..pipeline.retry_kinds import kinds_of, may_retry
from ..pipeline.step import Step
from ..values.fragments import report_fragment, result_of
from ..values.items import of_item
from ..values.limits import Limits, encoded
from .arguments import Arguments, GivenItem
from .cost_meter import METER
from .executors.executors import Executors
from .executors.remote_call import StepRaised
from .hurry import AwaitedSteps, Hurry
from .items import KeepItems, StepsOfItems
from .memoised_failures import MemoisedFailure, failure_get, failure_put
from .ports import ProgressSink
from .progress import REPORTER, Reporter
from .reasons import failure_of, readable
from .retry_pauses import Jitter, pause_after
from .reuse import Landed, Reuse
from .soft_needs import SoftNeeds
from .step_caller import CALLER, StepCaller
from .step_deadline import end_in
from .step_log import StepLog
from .step_records import failed_record, step_record
from .step_try import begin_try
from .worker_observer import FailedTry, StepEnd, StepOutcome

log = logging.getLogger(__name__)

_LAST_CLAIM = 5
"""The claim of a run from which on a step that is lost with its executor counts as failed."""


class StepRunner:
    """Runs the steps of one run, each from what `kept` holds of the steps that it needs."""

    def __init__(
        self,
        claim: Claim,
        pipeline: Pipeline,
        providers: Mapping[str, Any],
        makers: Mapping[str, str],
        limits: Limits,
        reuse: Reuse,
        executors: Executors,
        sink: ProgressSink,
        awaited: AwaitedSteps,
        jitter: Jitter,
    ) -> None:
        """Run steps of `claim`. `makers` are the digests of each step's providers.

        What steps give before they end is written to `sink`. Those that are `awaited` are hurried.
        `jitter` returns the pause before a new try, at most so many seconds.
        """
        self.awaited = awaited
        self._jitter = jitter
        self._claim = claim
        self._lease = claim.lease
        self._pipeline = pipeline
        self._makers = makers
        self.limits = limits
        self.reuse = reuse
        self._executors = executors
        self._sink = sink
        self._began = time.monotonic()
        self._inputs = pipeline.inputs.model_validate_json(claim.inputs)
        self.digests = pipeline.step_digests(self._inputs)
        if claim.step:
            self.digests = {claim.step: self.digests[claim.step]}
        """The steps of the run, in dependency order, each with its digest."""
        self.kept = dict(claim.ended)
        """The records of the steps that have ended."""
        self._soft_needs = SoftNeeds(pipeline, self.digests, self.kept)
        self._items = StepsOfItems(claim, self)
        self._arguments = Arguments(
            pipeline, self._inputs, len(claim.inputs), self.digests, providers
        )

    def keep(self, record: StepRecord, value: Any) -> None:
        """Keep an ended step's record, and the value that its steps take; None without one."""
        self.kept[record.name] = record
        if value is not None and record.state is StepState.COMPLETED:
            self._arguments.keep(record.name, record.fragment, value)

    def take_over(self, records: Iterable[StepRecord]) -> None:
        """Keep the records of steps whose results callers have reported."""
        self.kept.update((record.name, record) for record in records)

    def forget(self, steps: Iterable[str]) -> None:
        """Keep nothing of these steps: they are computed again."""
        for name in steps:
            self.kept.pop(name, None)

    def now_us(self) -> int:
        """Return the time in microseconds, by the store's clock: this machine's own may be off."""
        return self._claim.at_us + round((time.monotonic() - self._began) * 1e6)

    def count_stopped(self, record: StepRecord) -> None:
        """Count the work of a step whose result this run does not take."""
        self.reuse.stopped_work.note(self._lease, record)

    def note_stopped(self, step: Step, outcome: StepOutcome, took: float) -> None:
        """Count the work of a step that no run waited for when it ended; `took` in seconds."""
        done = StepWork(took, outcome.meter.cpu_seconds, outcome.meter.llm_tokens)
        self.count_stopped(StepRecord(step.name, StepState.FAILED, b"", done))

    def is_under_way(self, step: Step) -> bool:
        """Whether an earlier revision of this key, in this worker, computes the step now."""
        key = self._lease.job.key
        return not self._claim.fresh and self.reuse.shared_steps.is_under_way(
            key, self.digests[step.name]
        )

    async def run(
        self,
        step: Step,
        started_us: int,
        outcome: StepOutcome,
        keep_items: KeepItems,
        progressed: Callable[[Progress], None],
    ) -> tuple[StepRecord, Any]:
        """Compute a step, or take its result over from an earlier revision or another run.

        Fills `outcome`; keeps items of the step, as they end, by `keep_items`; and calls
        `progressed` with what the step reports. Returns the step's record, and its value if it was
        computed here. Raises ExecutorUnavailable when the step cannot run here, and what
        `keep_items` raises.
        """
        if step.each:
            record, value = await self._items.run(step, started_us, outcome, keep_items), None
        else:
            record, value = await self._shared(step, started_us, outcome, progressed)
        if record.state is StepState.COMPLETED:
            record = self._admitted(record, started_us, outcome)
        return self._soft_needs.noted(record), value

    async def _shared(
        self,
        step: Step,
        started_us: int,
        outcome: StepOutcome,
        progressed: Callable[[Progress], None],
    ) -> tuple[StepRecord, Any]:
        run, digest, fresh = self._lease.job.key, self.digests[step.name], self._claim.fresh
        memo = self._memo_digest(step) if step.memo else ""
        reuse = self.reuse

        async def work(outcome: StepOutcome) -> Landed:
            # Later runs that join this find the log, also once the first run has gone.
            with reuse.step_logs.held(key, given):
                return await computed(outcome)

        async def computed(outcome: StepOutcome) -> Landed:
            if memo and not fresh:
                result = await self.remembered(step.name, memo)
                if result is not None:
                    outcome.state, outcome.attempts = StepEnd.COMPLETED, 0
                    return Landed(run, None, result)
                failure = await failure_get(self.reuse.memos, run.namespace, step, memo)
                if failure is not None:
                    outcome.state, outcome.attempts = StepEnd.FAILED, 0
                    outcome.error, outcome.failure_reason = failure
                    outcome.memoised = True
                    return Landed(run, failed_record(step.name, 0.0, outcome, started_us))
            record, value = await self.attempt(step, started_us, outcome, given)
            if memo and record.state is StepState.COMPLETED:
                result = result_of(record.fragment)
                await self.reuse.memos.memo_put(run.namespace, memo, result, step.ttl)
            elif memo and outcome.failure_reason is not None:
                failure = MemoisedFailure(outcome.error, outcome.failure_reason)
                await failure_put(self.reuse.memos, run.namespace, step, memo, failure)
            return Landed(run, record, value=value)

        # The key has the results that this step needs: those of an impure step may differ.
        needed = self._soft_needs.given(step).values()
        key = (run.namespace, memo) if memo else (run, digest, *needed)
        began = time.monotonic()

        def stopped(outcome: StepOutcome) -> None:
            self.note_stopped(step, outcome, time.monotonic() - began)

        with reuse.step_logs.log(key, step, progressed, fresh=fresh) as given:
            writing = reuse.partial_writers.writing(given, self._sink, self._lease, step.name)
            with self.awaited.hurrying(step.name, given.hurry):
                async with writing:
                    landed: Landed = await reuse.shared_steps.share(
                        key, run, digest, outcome, work, fresh=fresh, stopped=stopped
                    )
        if landed.record is not None and landed.run == run:
            return landed.record, landed.value
        outcome.memoised = True
        return self._memoised(step, landed, started_us, outcome), None

    def _admitted(self, record: StepRecord, started_us: int, outcome: StepOutcome) -> StepRecord:
        """Return the record, or a failure's when it exceeds the room that this run has left.

        Other runs that share the step, or remember it, may have room.
        """
        held = sum(len(kept.fragment) for kept in self.kept.values())
        try:
            self.limits.admit(held, len(record.fragment))
        except StepFailed as failure:
            outcome.state, outcome.error = StepEnd.FAILED, str(failure)
            outcome.failure_reason = failure.failure_reason
            elapsed = (self.now_us() - started_us) / 1e6
            return failed_record(record.name, elapsed, outcome, started_us)
        return record

    def _memo_digest(self, step: Step) -> str:
        given = self._soft_needs.given(step)
        needed = {name: result_of(fragment) for name, fragment in given.items()}
        own, maker = self.digests[step.name], self._makers.get(step.name, "")
        return self._pipeline.memo_digest(step, self._inputs, own, maker, needed)

    def items_given(self, step: Step) -> tuple[Any, ItemDigests]:
        """Return the list that a step runs for, and the digests of its items."""
        given = self._soft_needs.given(step)
        needed = {name: result_of(fragment) for name, fragment in given.items()}
        maker = self._makers.get(step.name, "")
        digests = self._pipeline.item_digests(step, self._inputs, maker, needed)
        return self._arguments.listed(step, self.kept), digests

    def shown(self, name: str, started_us: int, progress: Progress | None) -> StepRecord:
        """Return the record of a step that runs, with what it reports."""
        return self._items.shown(name) or step_record(
            name, StepState.RUNNING, started_us=started_us, progress=progress
        )

    async def remembered(self, name: str, memo: str) -> bytes | None:
        """Return the memoised result, if there is one that this worker can read.

        `name` is that of a step, or of one item of it.
        """
        result = await self.reuse.memos.memo_get(self._lease.job.key.namespace, memo)
        if result is not None:
            try:
                self._pipeline.codec.decode(name, result)
            except Exception as error:  # noqa: BLE001  # whatever a codec raises for what is not its own
                log.warning("a memo of %s is left: %s", name, type(error).__name__)
                return None
        return result

    def _memoised(
        self, step: Step, landed: Landed, started_us: int, outcome: StepOutcome
    ) -> StepRecord:
        """Return the record that this run keeps of what another run has computed."""
        state, result, attempts = StepState.COMPLETED, landed.remembered, 0
        origin = pb.STEP_ORIGIN_MEMOISED
        if landed.record is not None:
            state, result = landed.record.state, result_of(landed.record.fragment)
        if state is not StepState.COMPLETED:
            attempts, origin = outcome.attempts, pb.STEP_ORIGIN_UNSPECIFIED
        report = report_fragment(
            step.name,
            state,
            error=outcome.error,
            failure_reason=outcome.failure_reason,
            elapsed=(self.now_us() - started_us) / 1e6,
            attempts=attempts,
            started_us=started_us,
            origin=origin,
        )
        return StepRecord(step.name, state, result + report)

    async def attempt(
        self,
        step: Step,
        started_us: int,
        outcome: StepOutcome,
        given: StepLog,
        item: GivenItem | None = None,
    ) -> tuple[StepRecord, Any]:
        """Run a step until it succeeds or may not be tried again. Never raises the step's error.

        What it yields goes to `given`. An `item` is what it runs for, of a step that runs for each
        item of a list. Returns its record, and its value if other steps take it. Raises
        ExecutorUnavailable, which counts as no attempt.
        """
        # The flight's task has its own context: no reset is needed.
        METER.set(outcome.meter)
        CALLER.set(self._caller(step, given.hurry))
        loop = asyncio.get_running_loop()
        began, tried_since = time.monotonic(), loop.time()
        error, reason = "", FailureReason.INTERNAL
        REPORTER.set(Reporter(given.note_progress))
        limits = self.limits.of(step.max_bytes)
        step = self.reuse.step_logs.collecting(step, given, limits)
        for attempt in range(1, step.max_attempts + 1):
            retry, retry_after = True, None
            outcome.attempts = attempt
            this_try = begin_try()
            limit = asyncio.timeout(None)
            try:
                await self._executors.ready(step)
                async with limit:
                    arguments = await self._arguments.of(step, self.kept, item)
                    begin = partial(_begin, step.timeout, limit)
                    value = await self._executors.call(step, arguments, outcome.meter, begin)
                codec = self._pipeline.codec
                name = step.name if item is None else of_item(step.name)
                needed = self._arguments.needs(name)
                value, result = await encoded(codec, name, value, limits, needed=needed)
            except GeneratorExit:
                raise  # this coroutine is closed; a step's own exit arrives as `StepRaised`
            except ExecutorUnavailable as failure:
                # A step that ends its executor must not be tried for ever.
                if not failure.began or self._lease.attempt < _LAST_CLAIM:
                    raise
                error, reason = readable(failure), FailureReason.WORKER_LOST
            except BaseException as failure:
                if outcome.unwanted:
                    # The step was cancelled, whatever it raised then.
                    raise asyncio.CancelledError from failure
                error, reason, retry, retry_after = self._reason(step, failure, limit)
            else:
                this_try.end()
                outcome.state = StepEnd.COMPLETED
                elapsed = time.monotonic() - began
                record = step_record(
                    step.name, StepState.COMPLETED, result, elapsed, attempt, started_us=started_us
                )
                return record, value
            this_try.end()
            outcome.tried.append(FailedTry(time.time_ns(), error))
            took = loop.time() - tried_since
            pause = pause_after(step, attempt, took, retry_after, self._jitter)
            if not retry or pause is None:
                break
            await asyncio.sleep(pause)
        outcome.state, outcome.error, outcome.failure_reason = StepEnd.FAILED, error, reason
        return failed_record(step.name, time.monotonic() - began, outcome, started_us), None

    def _caller(self, step: Step, hurry: Hurry) -> StepCaller:
        claim, job = self._claim, self._lease.job
        needed_us = claim.needed_us
        needed_at = self._began + (needed_us - claim.at_us) / 1e6 if needed_us else 0.0
        return StepCaller(
            namespace=job.key.namespace,
            run=f"{job.partition} {job.entry}",
            taken_us=claim.at_us,
            declared_at=needed_at,
            key=job.key.key,
            run_id=job.run,
            attempt=self._lease.attempt,
            step=step.name,
            fresh=claim.fresh,
            declared_us=needed_us,
            hurry=hurry,
        )

    def _reason(
        self, step: Step, failure: BaseException, limit: asyncio.Timeout
    ) -> tuple[str, FailureReason, bool, float | None]:
        """Return what callers may read, as text and data, and whether and when to try again.

        An error that a step did not raise on purpose becomes an id: its text may hold anything. A
        cancellation that a step raises by itself, from a future that it shares, is an error too.
        """
        failed = failure_of(failure)
        if failed is not None:
            if failed is not failure:
                log.info("%s %s failed", self._lease.job.key, step.name, exc_info=failure)
            return readable(failed), failed.failure_reason, failed.retry, failed.retry_after
        kinds = failure.kinds if isinstance(failure, StepRaised) else kinds_of(failure)
        retry = may_retry(kinds, step.retry_on)
        if isinstance(failure, TimeoutError) and limit.expired():
            return f"took longer than {step.timeout:g} s", FailureReason.TIMED_OUT, retry, None
        error = f"internal error {uuid.uuid4().hex[:12]}"
        log.error("%s %s: %s", self._lease.job.key, step.name, error, exc_info=failure)
        return error, FailureReason.INTERNAL, retry, None


def _begin(seconds: float, limit: asyncio.Timeout) -> None:
    """Begin an attempt's time. The wait for its executor is not part of it."""
    limit.reschedule(asyncio.get_running_loop().time() + seconds)
    end_in(seconds, limit)
