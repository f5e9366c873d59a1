"""Runs one claimed run: every step as soon as its inputs exist, each kept as soon as it ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from headstart.v1 import precompute_pb2 as pb

from ..domain import Claim, Status, StepRecord, StepState
from ..errors import HeadstartError, StepFailed
from .fragments import report_fragment, result_of
from .limits import Limits, encoded
from .observe import FailedTry, Outcome, WorkObserver, WorkObservers
from .pipeline import Pipeline
from .ports import RunLedger
from .reuse import Landed, Reuse
from .step import DIGEST_PARAMETER, Step

log = logging.getLogger(__name__)

_SHOW_AFTER = 0.005
"""Seconds after which a new run's first steps are shown as running."""


async def run(
    claim: Claim,
    pipeline: Pipeline,
    providers: Mapping[str, Any],
    ledger: RunLedger,
    observer: WorkObserver | None = None,
    reuse: Reuse | None = None,
    limits: Limits | None = None,
) -> Status:
    """Run what is missing of `claim` and finish it, with each step watched by `observer`.

    A step that returns more than `limits` allow fails.

    Returns the end status. Raises LeaseLost when the run was taken away, StoreUnavailable when its
    progress cannot be kept; either way no step of it is left running.
    """
    reuse = reuse or Reuse()
    work = _Run(
        claim, pipeline, providers, ledger, observer or WorkObservers(), reuse, limits or Limits()
    )
    with reuse.flights.expecting(claim.lease.job.key, work.expected):
        return await work.to_end()


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
        ledger: RunLedger,
        observer: WorkObserver,
        reuse: Reuse,
        limits: Limits,
    ) -> None:
        self._claim = claim
        self._limits = limits
        self._lease = claim.lease
        self._observer = observer
        self._reuse = reuse
        self._pipeline = pipeline
        self._providers = providers
        self._ledger = ledger
        self._inputs = pipeline.inputs.model_validate_json(claim.inputs)
        self._digests = pipeline.step_digests(self._inputs)
        self._kept = dict(claim.ended)
        self._held = sum(len(record.fragment) for record in claim.ended.values())
        self._states = {name: record.state for name, record in claim.ended.items()}
        self._values: dict[str, Any] = {}
        self._waiting = [name for name in self._digests if name not in claim.ended]
        self._running: set[str] = set()
        self._unshown: list[str] = []
        self._unwritten: list[StepRecord] = []
        self._failure = ""
        self._finished = False
        self._began = time.monotonic()
        self._starts: dict[str, int] = {}
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def expected(self) -> Collection[str]:
        """The digests of the steps that it can take over from an earlier revision."""
        return [] if self._claim.fresh else self._digests.values()

    async def to_end(self) -> Status:
        try:
            async with asyncio.TaskGroup() as group:
                self._advance(group)
                if self._running:
                    # A step that ends sooner is never shown as running: that saves a write.
                    await asyncio.wait(
                        self._tasks, timeout=_SHOW_AFTER, return_when=asyncio.FIRST_COMPLETED
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
        outcome = Outcome()
        with self._observer.step(self._claim, step.name, outcome):
            record = await self._shared(step, outcome)
        self._running.discard(step.name)
        self._states[step.name] = record.state
        self._kept[step.name] = record
        self._unwritten.append(record)
        if record.state is not StepState.COMPLETED:
            self._fail_if_required(step, outcome.error)
        self._advance(group)
        await self._write()

    async def _write(self) -> None:
        """Write what ended and what runs now; end the run when nothing does."""
        async with self._writing:
            if self._finished:
                return
            ended, self._unwritten = self._unwritten, []
            shown = [name for name in self._unshown if name in self._running]
            self._unshown = []
            if self._failure or not self._running:
                self._finished = True
                await self._finish(ended)
            elif ended or shown:
                running = [
                    _record(name, StepState.RUNNING, started_us=self._starts[name])
                    for name in shown
                ]
                await self._ledger.commit(self._lease, ended, running)

    async def _finish(self, ended: list[StepRecord]) -> None:
        if self._failure:
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()
            ended.extend(self._abandoned())
            await self._ledger.finish(self._lease, ended, Status.FAILED, self._failure)
        else:
            await self._ledger.finish(self._lease, ended, Status.COMPLETED, "")

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
                self._tasks.add(task)
            else:
                still_waiting.append(name)
        self._waiting = still_waiting

    def _now_us(self) -> int:
        """By the store's clock, as it stood at the claim: this machine's own may be off."""
        return self._claim.at_us + round((time.monotonic() - self._began) * 1e6)

    def _fail_if_required(self, step: Step, reason: str) -> None:
        if step.required and not self._failure:
            self._failure = f"{step.name}: {reason}"

    def _abandoned(self) -> list[StepRecord]:
        """What will never end because a required step failed."""
        return [
            _record(name, StepState.SKIPPED, error="a required step failed")
            for name in self._digests
            if name not in self._states
        ]

    async def _shared(self, step: Step, outcome: Outcome) -> StepRecord:
        """A step's record: computed here, taken over from an earlier revision, or memoised."""
        run, digest, fresh = self._lease.job.key, self._digests[step.name], self._claim.fresh
        memo = self._memo_digest(step) if step.memo else ""

        async def work(outcome: Outcome) -> Landed:
            if memo and not fresh:
                result = await self._remembered(step, memo)
                if result is not None:
                    outcome.state, outcome.attempts = StepState.COMPLETED.name.lower(), 0
                    return Landed(run, None, result)
            record = await self._attempt(step, outcome)
            if memo and record.state is StepState.COMPLETED:
                result = result_of(record.fragment)
                await self._reuse.memos.keep(run.namespace, memo, result)
            return Landed(run, record)

        # What was begun with another result of a step that is not pure is other work.
        needed = (self._kept[name].fragment for name in self._pipeline.needs(step))
        key = (run.namespace, memo) if memo else (run, digest, *needed)
        landed: Landed = await self._reuse.flights.share(
            key, run, digest, outcome, work, fresh=fresh
        )
        record = landed.record
        if record is None or landed.run != run:
            outcome.memoised = True
            record = self._memoised(step, landed, outcome)
        return record

    def _memo_digest(self, step: Step) -> str:
        needed = {name: result_of(self._kept[name].fragment) for name in self._pipeline.needs(step)}
        own = self._digests[step.name]
        return self._pipeline.memo_digest(step, self._inputs, own, needed)

    async def _remembered(self, step: Step, memo: str) -> bytes | None:
        """The result that is remembered, if there is one that this worker can read."""
        result = await self._reuse.memos.recall(self._lease.job.key.namespace, memo)
        if result is not None:
            try:
                self._pipeline.codec.decode(step.name, result)
            except Exception as error:  # noqa: BLE001  # whatever a codec raises for what is not its own
                log.warning("a memo of %s is left: %s", step.name, type(error).__name__)
                return None
        return result

    def _memoised(self, step: Step, landed: Landed, outcome: Outcome) -> StepRecord:
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

    async def _attempt(self, step: Step, outcome: Outcome) -> StepRecord:
        """Run a step until it succeeds or may not be tried again; never raises what it raised."""
        began, started = time.monotonic(), self._starts[step.name]
        error = ""
        for attempt in range(1, step.max_attempts + 1):
            retry = True
            outcome.attempts = attempt
            limit = asyncio.timeout(step.timeout)
            try:
                async with limit:
                    value = await step.function(**self._arguments(step))
                codec = self._pipeline.codec
                value, result = await encoded(codec, step.name, value, self._limits)
                self._held = self._limits.admit(self._held, len(result))
            except StepFailed as failure:
                error, retry = str(failure), failure.retry
            except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001  # see _told
                error = self._told(step, failure, limit)
            else:
                self._values[step.name] = value
                outcome.state = StepState.COMPLETED.name.lower()
                elapsed = time.monotonic() - began
                return _record(
                    step.name, StepState.COMPLETED, result, elapsed, attempt, started_us=started
                )
            outcome.tried.append(FailedTry(time.time_ns(), error))
            if not retry or attempt == step.max_attempts:
                break
            await asyncio.sleep(step.backoff * 2 ** (attempt - 1))
        outcome.state, outcome.error = StepState.FAILED.name.lower(), error
        elapsed = time.monotonic() - began
        return _record(step.name, StepState.FAILED, b"", elapsed, attempt, error, started)

    def _told(self, step: Step, failure: BaseException, limit: asyncio.Timeout) -> str:
        """What callers may read of an error that a step did not raise on purpose.

        An id, never its text: that may hold anything. Raises the cancellation of the run again;
        one that came out of the step by itself, from a future it shares, is an error like others.
        """
        task = asyncio.current_task()
        if isinstance(failure, asyncio.CancelledError) and task is not None and task.cancelling():
            raise failure
        if isinstance(failure, TimeoutError) and limit.expired():
            return f"took longer than {step.timeout:g} s"
        error = f"internal error {uuid.uuid4().hex[:12]}"
        log.error("%s %s: %s", self._lease.job.key, step.name, error, exc_info=failure)
        return error

    def _arguments(self, step: Step) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name in step.parameters:
            if name in self._pipeline.by_name:
                arguments[name] = self._value(name)
            elif name in self._pipeline.inputs.model_fields:
                arguments[name] = getattr(self._inputs, name)
            elif name == DIGEST_PARAMETER:
                arguments[name] = self._digests[step.name]
            else:
                arguments[name] = self._providers[name]
        return arguments

    def _value(self, name: str) -> Any:
        if name not in self._values:  # ended before this worker took the run
            self._values[name] = self._pipeline.codec.decode(name, self._kept[name].fragment)
        return self._values[name]


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
