"""The worker: supervises its runs, keeps their leases, and hands on those that it leaves."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ..domain import (
    DEFAULT_POOL,
    Awaited,
    Claim,
    FailureReason,
    Job,
    Offer,
    Reported,
    Status,
    Unserved,
    Withdrawal,
    WorkerState,
)
from ..domain.errors import ExecutorUnavailable, LastTry, LeaseLost, StoreUnavailable
from ..pipeline.registry import Registry
from .capacity import Slots
from .durations import Durations
from .executors.executors import Executors
from .held_runs import HeldRun, HeldRuns
from .intake import POLL, Intake
from .last_tries import LastTries
from .left_jobs import log_left_alone
from .occupancy import Occupancy, occupied_seconds, within
from .offers import makers_of, offers_of
from .ports import JobQueue, MemoStore, ProgressSink, StepRuns
from .reported_steps import ReportedSteps
from .reuse import Reuse
from .run import run
from .settling import EarlyWaits, Settling
from .step_runs import StepsElsewhere, failed
from .upkeep import end, ended, once, repeat
from .worker_observer import UNWANTED, RunEnd, RunOutcome, WorkObserver, WorkObservers
from .worker_rules import WorkerRules

log = logging.getLogger(__name__)

_SWEEP_EVERY = 5.0
_LOST = "its lease was lost"


class Worker:
    """Runs jobs until `stop` is called."""

    def __init__(
        self,
        queue: JobQueue,
        registry: Registry,
        providers: Mapping[str, Any],
        rules: WorkerRules,
        observer: WorkObserver | None = None,
        sink: ProgressSink | None = None,
        memos: MemoStore | None = None,
        durations: Durations | None = None,
        executors: Executors | None = None,
        step_runs: StepRuns | None = None,
    ) -> None:
        """Run the registry's pipelines with these providers on the queue's jobs.

        What a run writes goes to the queue by way of `sink`, if there is one; results of memoised
        steps are kept in `memos`. The worker's heartbeat reports `durations`. `step_runs` has the
        steps computed whose pools the registry does not serve.
        """
        self._reuse = Reuse(memos, queue.count_stopped)
        self._observer = observer or WorkObservers()
        self._queue = queue
        self._sink = sink or queue
        self._registry = registry
        self._all_offers = offers_of(registry, providers)
        self._makers = {pipeline.name: makers_of(pipeline, providers) for pipeline in registry}
        self._elsewhere = StepsElsewhere(step_runs, registry.serves) if step_runs else None
        self._durations = durations or Durations()
        self._providers = providers
        self._executors = executors
        self._rules = rules
        self._slots = Slots(rules.concurrency, max(rules.runs, rules.concurrency))
        self._intake = Intake(queue, rules.name, self._slots, lambda: self._offers)
        self._jobs: set[asyncio.Task[None]] = set()
        self._runs = HeldRuns()
        self._early_waits = EarlyWaits()
        self._last_tries = LastTries(
            queue, rules.name, self._slots, self._runs, lambda: self._offers, rules.lease
        )
        self._stopping = asyncio.Event()
        self._prepared = False
        self._changed = asyncio.Event()
        if executors is not None:
            executors.changed = self._changed.set
        self._handing_on = False
        self._started_us = time.time_ns() // 1000

    @property
    def problem(self) -> str:
        """Why it gets no jobs, in one line; empty when it asks for them without an error."""
        return "" if self._full else self._intake.problem

    @property
    def _full(self) -> bool:
        """Whether it asks for no jobs now, because it has enough."""
        most = self._rules
        return bool(self._last_tries) or self.busy >= most.concurrency or self.held >= most.runs

    @property
    def busy(self) -> int:
        """How many of its runs compute now; the others only wait for what is elsewhere."""
        return self._runs.computing

    @property
    def held(self) -> int:
        """How many runs it holds."""
        return len(self._runs)

    @property
    def underway(self) -> Sequence[str]:
        """The keys of these runs."""
        return [str(lease.job.key) for lease in self._runs.leases]

    def stop(self) -> None:
        """Take no more jobs, and make `serve` return once its runs have ended or were handed on."""
        self._stopping.set()

    async def serve(self) -> None:
        """Work until `stop`, then drain. Raises what a bug in the worker itself raised."""
        if not self._prepared and not await self.prepare():
            return
        async with self._reuse.open(), asyncio.TaskGroup() as group:
            every = self._rules.lease / 3
            upkeep = [
                group.create_task(repeat(self._renew, every), name="renew"),
                group.create_task(self._keep_showing(every), name="beat"),
                group.create_task(repeat(self._queue.sweep, _SWEEP_EVERY), name="sweep"),
                group.create_task(self._withdraw(), name="withdraw"),
            ]
            start = partial(self._start, group)
            reclaim = repeat(partial(self._intake.reclaim, start), every)
            taking = [
                group.create_task(reclaim, name="reclaim"),
                group.create_task(self._intake.take_unserved(start), name="unserved"),
            ]
            for partition in range(self._queue.partitions):
                if DEFAULT_POOL in self._registry.pools:
                    fetch = self._intake.take_new(partition, start)
                else:
                    fetch = self._intake.ask_for_unserved(partition)
                taking.append(group.create_task(fetch, name=f"fetch {partition}"))
            try:
                await self._stopping.wait()
                await end(taking)
                await self._drain()
            finally:
                await end([*taking, *upkeep])
        try:
            await self._queue.deregister(self._rules.name)
        except StoreUnavailable as error:
            # Other workers reclaim this worker's jobs when their leases have run out.
            log.warning("cannot deregister from the queue: %s", error)

    async def prepare(self) -> bool:
        """Make sure that jobs are delivered, and show what this worker offers.

        Returns False when `stop` was called before the store had answered.
        """
        while not self._stopping.is_set():
            try:
                await self._queue.prepare_queue()
                self._intake.forget_refusals()
                await self._offer()
            except StoreUnavailable as error:
                self._intake.note_refusal(0, error, "waiting for the store")
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._stopping.wait()
            else:
                self._prepared = True
                return True
        return False

    @property
    def _offers(self) -> Sequence[Offer]:
        """The pipelines that it can run now."""
        away = self._executors.unavailable if self._executors else {}
        return [offer for offer in self._all_offers if offer.pipeline not in away]

    async def _keep_showing(self, every: float) -> None:
        """Show this worker and what it runs, so often and at every change."""
        while True:
            await once(self._beat)
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._changed.wait()
            self._changed.clear()
            await once(self._offer)

    async def _offer(self) -> None:
        """Show what this worker runs, and see whether something was left for it.

        Of a partition that gives it no jobs it runs nothing: callers must not count on it.
        """
        for partition in range(self._queue.partitions):
            if self._intake.is_refused(partition) and not self._full:
                continue
            if await self._queue.offer(partition, self._rules.name, self._offers):
                self._intake.note_unserved(partition)

    def _start(self, group: asyncio.TaskGroup, job: Job) -> None:
        task = group.create_task(self._work(job), name=str(job.key))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _work(self, job: Job) -> None:
        """Claim a job and run it, then free its room."""
        try:
            occupancy = self._slots.occupancy()
            try:
                await self._claim_and_run(job, occupancy)
            finally:
                self._slots.end(occupancy)
        except LastTry:
            await self._last_tries.run(job, self._work_alone)
        except StoreUnavailable as error:
            log_left_alone(job, error)

    async def _work_alone(self, job: Job) -> None:
        """Run a job that has the whole room of this worker."""
        try:
            await self._claim_and_run(job, None)
        except StoreUnavailable as error:
            log_left_alone(job, error)

    async def _claim_and_run(self, job: Job, occupancy: Occupancy | None) -> None:
        alone = occupancy is None
        claim = await self._queue.claim(job, self._rules.name, self._offers, alone=alone)
        if claim is not None:
            await self._run(claim, occupancy)

    async def _run(self, claim: Claim, occupancy: Occupancy | None) -> None:
        lease = claim.lease
        name = f"{lease.job.key} revision {claim.revision} attempt {lease.attempt}"
        if self._handing_on:
            await self._queue.release(lease)
            return
        # A task of its own: a lost lease cancels the run, and this one still cleans up.
        outcome, reports, settling = RunOutcome(), ReportedSteps(), Settling()
        settling.awaited.ask(self._early_waits.take(lease.job.run))
        task = asyncio.create_task(
            self._execute(claim, outcome, reports, settling), name=name, context=within(occupancy)
        )
        held = HeldRun(outcome, reports, settling, task, occupancy)
        try:
            with self._runs.holding(lease, held):
                await ended(task)
        finally:
            task.cancel()
            await ended(task)
        if task.cancelled():
            if held.is_handed_on or self._handing_on:
                await self._queue.release(lease)
            return
        try:
            task.result()
        except StoreUnavailable:
            pass  # the lease runs out, and the next worker keeps the committed steps
        except ExecutorUnavailable as error:
            log.warning("%s handed on: %s", lease.job.key, error)
            await self._queue.release(lease)

    async def _execute(
        self, claim: Claim, outcome: RunOutcome, reports: ReportedSteps, settling: Settling
    ) -> Status:
        with self._observer.run(claim, outcome):
            try:
                status = await self._to_end(claim, outcome, reports, settling)
            except asyncio.CancelledError:
                if self._handing_on:
                    outcome.state = RunEnd.HANDED_ON
                raise
            except StoreUnavailable as error:
                outcome.error = str(error)
                raise
            except ExecutorUnavailable as error:
                outcome.state, outcome.error = RunEnd.HANDED_ON, str(error)
                raise
            outcome.state = RunEnd(status)
            outcome.slot_seconds = occupied_seconds()
            outcome.settled_seconds = settling.seconds
            return status

    async def _to_end(
        self, claim: Claim, outcome: RunOutcome, reports: ReportedSteps, settling: Settling
    ) -> Status:
        lease = claim.lease
        try:
            try:
                return await run(
                    claim,
                    self._registry.require(claim.pipeline, "pipeline"),
                    self._providers,
                    self._sink,
                    self._observer,
                    self._rules.limits,
                    self._reuse,
                    reports,
                    self._executors,
                    self._makers[claim.pipeline],
                    self._elsewhere,
                    settling,
                )
            except (
                *(LeaseLost, ExecutorUnavailable, StoreUnavailable),
                *(asyncio.CancelledError, GeneratorExit),
            ):
                raise
            except BaseException:  # an author's inputs or conditions may raise anything
                reason = f"internal error {uuid.uuid4().hex[:12]}"
                log.exception("%s: %s", lease.job.key, reason)
            outcome.error = reason
            ended = [failed(claim.step, reason, FailureReason.INTERNAL)] if claim.step else []
            await self._sink.finish(lease, ended, Status.FAILED, reason, FailureReason.INTERNAL)
        except LeaseLost:
            outcome.error = _LOST
            raise asyncio.CancelledError from None
        return Status.FAILED

    async def _renew(self) -> None:
        for lease in await self._queue.renew(self._runs.leases, self._rules.name):
            if (held := self._runs.get(lease)) is not None:
                held.cancel(_LOST)

    async def _beat(self) -> None:
        """Let operators see this worker until two of its beats have been missed."""
        state = WorkerState(
            name=self._rules.name,
            host=self._rules.host,
            version=self._rules.version,
            pipelines=tuple(pipeline.name for pipeline in self._registry),
            pools=tuple(sorted(self._registry.pools)),
            slots=self._rules.concurrency,
            busy=self.busy,
            started_us=self._started_us,
            durations=self._durations.table(),
        )
        await self._queue.heartbeat(state, self._rules.lease)

    async def _withdraw(self) -> None:
        """Stop runs at once when they are cancelled or replaced, not at their next commit."""
        while True:
            try:
                async with self._queue.withdrawals() as withdrawals:
                    async for event in withdrawals:
                        match event:
                            case Reported():
                                self._runs.pass_on(event)
                            case Awaited():
                                self._ask(event)
                            case Unserved(partition, runs_class):
                                if any(o.runs_class == runs_class for o in self._offers):
                                    self._intake.note_unserved(partition)
                            case Withdrawal():
                                self._stop(event)
            except StoreUnavailable as error:
                log.debug("no withdrawals: %s", error)
                await asyncio.sleep(POLL)

    def _ask(self, awaited: Awaited) -> None:
        """Hurry the steps for which callers wait."""
        held = self._runs.of(awaited.key, awaited.run)
        for each in held:
            each.settling.awaited.ask(awaited.steps)
        if not held:
            self._early_waits.keep(awaited.run, awaited.steps)

    def _stop(self, withdrawn: Withdrawal) -> None:
        """Stop the run that is not wanted any more, if it is this worker's."""
        for held in self._runs.of(withdrawn.key, withdrawn.run):
            if withdrawn.replaced:
                self._reuse.shared_steps.hold(withdrawn.key)
            held.cancel(UNWANTED)

    async def _drain(self) -> None:
        """Let runs end for a while, then hand on those that have not."""
        if self._jobs:
            log.info("draining %d runs for at most %g s", len(self._jobs), self._rules.drain)
            await asyncio.wait(self._jobs, timeout=self._rules.drain)
        self._handing_on = True
        for held in self._runs.all:
            held.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)
