"""The worker: runs jobs in a bounded pool, keeps their leases, hands on what it leaves."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..domain import (
    Claim,
    Job,
    Lease,
    Offer,
    Reported,
    Status,
    Unserved,
    Withdrawal,
    WorkerState,
)
from ..domain.errors import (
    LastTry,
    LeaseLost,
    PlaceUnavailable,
    StoreUnavailable,
)
from ..domain.log_fields import fields
from ..pipeline.registry import Registry
from ..values.limits import Limits
from .durations import Durations
from .executors.executors import Places
from .offers import offers_of
from .ports import JobQueue, MemoStore, ProgressSink
from .reported_steps import Reports
from .reuse import Reuse
from .run import run
from .worker_observer import (
    UNWANTED,
    RunEnd,
    RunOutcome,
    WorkObserver,
    WorkObservers,
)

log = logging.getLogger(__name__)

_POLL = 1.0
_BURST = 64
_SWEEP_EVERY = 5.0
_CANCEL_AGAIN = 1.0
_LOST = "its lease was lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    """How a worker behaves. Durations in seconds."""

    name: str
    """Unique among all workers of a store."""
    concurrency: int
    """How many runs it works on at once."""
    lease: float
    """How long a run stays its own without renewal."""
    drain: float
    """How long runs may go on after it was told to stop."""
    host: str = ""
    """The machine that operators see it on."""
    version: str = ""
    limits: Limits = field(default_factory=Limits)
    """How much steps may return."""


class Worker:
    """Runs jobs until it is told to stop."""

    def __init__(
        self,
        queue: JobQueue,
        registry: Registry,
        providers: Mapping[str, Any],
        rules: WorkerRules,
        observer: WorkObserver | None = None,
        ledger: ProgressSink | None = None,
        memos: MemoStore | None = None,
        durations: Durations | None = None,
        places: Places | None = None,
    ) -> None:
        """Run the registry's pipelines with these providers on the queue's jobs.

        What a run writes goes to the queue by way of `ledger`, if there is one; results of memoised
        steps are kept in `memos`. What the worker says of itself tells of `durations`, too.
        """
        self._reuse = Reuse(memos)
        self._observer = observer or WorkObservers()
        self._queue = queue
        self._ledger = ledger or queue
        self._registry = registry
        self._all_offers = offers_of(registry, providers)
        self._makers = {offer.pipeline: offer.makers for offer in self._all_offers}
        self._durations = durations or Durations()
        self._providers = providers
        self._places = places
        self._rules = rules
        self._slots = asyncio.Semaphore(rules.concurrency)
        self._solitude = asyncio.Lock()
        self._lonely: set[Job] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._runs: dict[Lease, tuple[Claim, RunOutcome, asyncio.Task[Status]]] = {}
        self._reports: dict[Lease, Reports] = {}
        self._stopping = asyncio.Event()
        self._prepared = False
        self._unserved: set[int] = set()
        """Partitions in which runs were left for workers like this one."""
        self._left = asyncio.Event()
        self._changed = asyncio.Event()
        if places is not None:
            places.changed = self._changed.set
        self._handing_on = False
        self._refused: dict[int, str] = {}
        """By partition, why the last call for jobs failed."""
        self._started_us = time.time_ns() // 1000

    @property
    def problem(self) -> str:
        """Why it gets no jobs, in one line; empty when it asks for them without an error."""
        return "" if self._full else next(iter(self._refused.values()), "")

    @property
    def _full(self) -> bool:
        """Whether it asks for no jobs now, because it has enough."""
        return bool(self._lonely) or len(self._runs) >= self._rules.concurrency

    @property
    def busy(self) -> int:
        """How many runs it computes now."""
        return len(self._runs)

    @property
    def underway(self) -> Sequence[str]:
        """The keys of these runs."""
        return [str(lease.job.key) for lease in list(self._runs)]

    def stop(self) -> None:
        """Take no more jobs, and make `serve` return once its runs have ended or were handed on."""
        self._stopping.set()

    async def serve(self) -> None:
        """Work until `stop`, then drain. Raises what a bug in the worker itself raised."""
        if not self._prepared and not await self.prepare():
            return
        async with aclosing(self._reuse.flights), asyncio.TaskGroup() as group:
            every = self._rules.lease / 3
            upkeep = [
                group.create_task(_repeat(self._renew, every), name="renew"),
                group.create_task(self._keep_showing(every), name="beat"),
                group.create_task(_repeat(self._queue.sweep, _SWEEP_EVERY), name="sweep"),
                group.create_task(self._withdraw(), name="withdraw"),
            ]
            taking = [
                group.create_task(_repeat(lambda: self._reclaim(group), every), name="reclaim"),
                group.create_task(self._take_unserved(group), name="unserved"),
            ]
            for partition in range(self._queue.partitions):
                fetch = self._fetch(group, partition)
                taking.append(group.create_task(fetch, name=f"fetch {partition}"))
            try:
                await self._stopping.wait()
                await _end(taking)
                await self._drain()
            finally:
                await _end([*taking, *upkeep])
        try:
            await self._queue.deregister(self._rules.name)
        except StoreUnavailable as error:
            # What this worker still has is reclaimed when its lease has run out.
            log.warning("cannot take leave of the queue: %s", error)

    async def prepare(self) -> bool:
        """Make sure that jobs are delivered, and show what this worker offers.

        Returns False when told to stop before the store had answered.
        """
        while not self._stopping.is_set():
            try:
                await self._queue.prepare_queue()
                self._refused.clear()
                await self._offer()
            except StoreUnavailable as error:
                self._note_refusal(0, error, "waiting for the store")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await self._stopping.wait()
            else:
                self._prepared = True
                return True
        return False

    def _note_refusal(self, partition: int, error: StoreUnavailable, what: str) -> None:
        """Remember why there are no jobs; log it when it changes."""
        if self._refused.get(partition) != str(error):
            log.warning("%s: %s", what, error)
        self._refused[partition] = str(error)

    async def _fetch(self, group: asyncio.TaskGroup, partition: int) -> None:
        """Take new jobs whenever there is a slot for them."""
        name = self._rules.name
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            await self._slots.acquire()
            free = 1
            # When slots are short, an empty partition must not keep one from the others.
            short = self._slots.locked() and self._queue.partitions > 1
            pause = _POLL / 20 if short else 0.0
            try:
                for job in await self._queue.next_jobs(partition, name, 1, 0 if short else _POLL):
                    free, pause = 0, 0.0
                    self._start(group, job)
                self._refused.pop(partition, None)
                if free:
                    continue
                # Where one came from there may be more.
                free = await self._take_free_slots()
                if free:
                    for job in await self._queue.next_jobs(partition, name, free, 0):
                        free -= 1
                        self._start(group, job)
            except StoreUnavailable as error:
                self._note_refusal(partition, error, "no jobs")
                pause = _POLL / 4
            finally:
                self._give_back(free)

    async def _reclaim(self, group: asyncio.TaskGroup) -> None:
        """Take over what other workers have lost, as far as there are slots for it."""
        for partition in range(self._queue.partitions):
            await self._slots.acquire()
            free = 1
            try:
                free += await self._take_free_slots()
                for job in await self._queue.lost_jobs(partition, self._rules.name, free):
                    told = fields("run.reclaimed", job.key, run=job.run, worker=self._rules.name)
                    log.warning("%s reclaimed: its worker was lost", job.key, extra=told)
                    free -= 1
                    self._start(group, job)
            finally:
                self._give_back(free)

    @property
    def _offers(self) -> Sequence[Offer]:
        """The pipelines that it can run now."""
        away = self._places.unavailable if self._places else {}
        return [offer for offer in self._all_offers if offer.pipeline not in away]

    async def _keep_showing(self, every: float) -> None:
        """Show this worker and what it runs, so often and at every change."""
        while True:
            await _once(self._beat)
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._changed.wait()
            self._changed.clear()
            await _once(self._offer)

    async def _offer(self) -> None:
        """Show what this worker runs, and see whether something was left for it.

        Of a partition that gives it no jobs it runs nothing: callers must not count on it.
        """
        for partition in range(self._queue.partitions):
            if partition in self._refused and not self._full:
                continue
            if await self._queue.offer(partition, self._rules.name, self._offers):
                self._note_unserved(partition)

    def _note_unserved(self, partition: int) -> None:
        self._unserved.add(partition)
        self._left.set()

    async def _take_unserved(self, group: asyncio.TaskGroup) -> None:
        """Take runs that other workers have left for workers like this one."""
        while True:
            await self._left.wait()
            self._left.clear()
            while self._unserved:
                await _once(partial(self._take_unserved_of, group, self._unserved.pop()))

    async def _take_unserved_of(self, group: asyncio.TaskGroup, partition: int) -> None:
        jobs: Sequence[Job] | None = None
        while jobs is None or jobs:
            await self._slots.acquire()
            free = 1
            try:
                free += await self._take_free_slots()
                jobs = await self._queue.unserved_jobs(
                    partition, self._rules.name, self._offers, free
                )
                for job in jobs:
                    free -= 1
                    self._start(group, job)
            finally:
                self._give_back(free)

    async def _take_free_slots(self) -> int:
        """Take at most a burst of the slots that nobody waits for; gives their number."""
        taken = 0
        while taken < _BURST and not self._slots.locked():
            await self._slots.acquire()
            taken += 1
        return taken

    def _give_back(self, slots: int) -> None:
        for _ in range(slots):
            self._slots.release()

    def _start(self, group: asyncio.TaskGroup, job: Job) -> None:
        task = group.create_task(self._work(job), name=str(job.key))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _work(self, job: Job) -> None:
        """Claim a job and run it; gives its slot back."""
        try:
            try:
                await self._claim_and_run(job, alone=False)
            finally:
                self._slots.release()
        except LastTry:
            await self._work_alone(job)
        except StoreUnavailable as error:
            _left_alone(job, error)

    async def _work_alone(self, job: Job) -> None:
        """Run a job with nothing beside it, which takes every slot.

        A run that kills its worker takes those along that run beside it, each time. The last time
        there must be none, or runs that did no harm would be given up with it.
        """
        if job in self._lonely:
            return  # reclaimed from itself while it waits here
        self._lonely.add(job)
        taken = 0
        try:
            async with self._solitude:
                while taken < self._rules.concurrency:
                    await self._slots.acquire()
                    taken += 1
                await self._claim_and_run(job, alone=True)
        except StoreUnavailable as error:
            _left_alone(job, error)
        finally:
            self._give_back(taken)
            self._lonely.discard(job)

    async def _claim_and_run(self, job: Job, *, alone: bool) -> None:
        claim = await self._queue.claim(job, self._rules.name, self._offers, alone=alone)
        if claim is not None:
            await self._run(claim)

    async def _run(self, claim: Claim) -> None:
        lease = claim.lease
        name = f"{lease.job.key} revision {claim.revision} attempt {lease.attempt}"
        if self._handing_on:
            await self._queue.release(lease)
            return
        # A task of its own: a lost lease cancels the run, and this one still cleans up.
        outcome = RunOutcome()
        reports = self._reports[lease] = Reports()
        task = asyncio.create_task(self._execute(claim, outcome, reports), name=name)
        self._runs[lease] = claim, outcome, task
        try:
            await asyncio.wait({task})
        finally:
            del self._runs[lease], self._reports[lease]
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            if self._handing_on:
                await self._queue.release(lease)
            return
        try:
            task.result()
        except StoreUnavailable:
            pass  # the lease runs out, and whoever reclaims the job keeps the committed steps
        except PlaceUnavailable as error:
            log.warning("%s handed on: %s", lease.job.key, error)
            await self._queue.release(lease)

    async def _execute(self, claim: Claim, outcome: RunOutcome, reports: Reports) -> Status:
        with self._observer.run(claim, outcome):
            try:
                status = await self._to_end(claim, outcome, reports)
            except asyncio.CancelledError:
                outcome.state = RunEnd.HANDED_ON if self._handing_on else RunEnd.STOPPED
                raise
            except StoreUnavailable as error:
                outcome.error = str(error)
                raise
            except PlaceUnavailable as error:
                outcome.state, outcome.error = RunEnd.HANDED_ON, str(error)
                raise
            outcome.state = RunEnd(status)
            return status

    async def _to_end(self, claim: Claim, outcome: RunOutcome, reports: Reports) -> Status:
        lease = claim.lease
        try:
            try:
                return await run(
                    claim,
                    self._registry.require(claim.pipeline, "pipeline"),
                    self._providers,
                    self._ledger,
                    self._observer,
                    self._rules.limits,
                    self._reuse,
                    reports,
                    self._places,
                    self._makers[claim.pipeline],
                )
            except (
                *(LeaseLost, PlaceUnavailable, StoreUnavailable),
                *(asyncio.CancelledError, GeneratorExit),
            ):
                raise
            except BaseException:  # an author's inputs or conditions may raise anything
                reason = f"internal error {uuid.uuid4().hex[:12]}"
                log.exception("%s: %s", lease.job.key, reason)
            outcome.error = reason
            await self._ledger.finish(lease, (), Status.FAILED, reason)
        except LeaseLost:
            outcome.error = _LOST
            raise asyncio.CancelledError from None
        return Status.FAILED

    async def _renew(self) -> None:
        for lease in await self._queue.renew(list(self._runs), self._rules.name):
            if lease in self._runs:
                self._cancel(lease, _LOST)

    async def _beat(self) -> None:
        """Let operators see this worker until two of its beats have been missed."""
        state = WorkerState(
            name=self._rules.name,
            host=self._rules.host,
            version=self._rules.version,
            pipelines=tuple(pipeline.name for pipeline in self._registry),
            slots=self._rules.concurrency,
            busy=len(self._runs),
            started_us=self._started_us,
            durations=self._durations.table(),
        )
        await self._queue.heartbeat(state, self._rules.lease)

    async def _withdraw(self) -> None:
        """Stop runs at once when they are cancelled or replaced, not at their next commit."""
        while True:
            try:
                async with self._queue.withdrawals() as withdrawals:
                    async for heard in withdrawals:
                        match heard:
                            case Reported():
                                self._tell(heard)
                            case Unserved(partition, runs_class):
                                if any(o.runs_class == runs_class for o in self._offers):
                                    self._note_unserved(partition)
                            case Withdrawal():
                                self._stop(heard)
            except StoreUnavailable as error:
                log.debug("no withdrawals: %s", error)
                await asyncio.sleep(_POLL)

    def _tell(self, reported: Reported) -> None:
        """Let the run that computes these steps know that it need not."""
        for lease in list(self._runs):
            if (lease.job.key, lease.job.run) == (reported.key, reported.run):
                self._reports[lease].tell(reported.steps)

    def _stop(self, withdrawn: Withdrawal) -> None:
        """Stop the run that is not wanted any more, if it is this worker's."""
        for lease in list(self._runs):
            if (lease.job.key, lease.job.run) == (withdrawn.key, withdrawn.run):
                if withdrawn.replaced:
                    self._reuse.flights.hold(withdrawn.key)
                self._cancel(lease, UNWANTED)

    def _cancel(self, lease: Lease, why: str) -> None:
        _, outcome, task = self._runs[lease]
        outcome.error = outcome.error or why
        task.cancel()

    async def _drain(self) -> None:
        """Let runs end for a while, then hand on those that have not."""
        if self._jobs:
            log.info("draining %d runs for at most %g s", len(self._jobs), self._rules.drain)
            await asyncio.wait(self._jobs, timeout=self._rules.drain)
        self._handing_on = True
        for _, _, task in list(self._runs.values()):
            task.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)


def _left_alone(job: Job, error: StoreUnavailable) -> None:
    """The lease runs out, and whoever reclaims the job keeps the steps that were committed."""
    log.warning("%s left alone: %s", job.key, error, extra=fields("run.left", job.key, run=job.run))


async def _repeat(action: Callable[[], Awaitable[None]], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await _once(action)


async def _once(action: Callable[[], Awaitable[None]]) -> None:
    try:
        await action()
    except StoreUnavailable as error:
        log.warning("upkeep: %s", error)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: Python 3.11's wait_for, which redis-py sends with, may swallow it.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN)
