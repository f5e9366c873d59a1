"""The store for workers: claims of jobs, and writes that their fencing token protects."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster

from ..domain import (
    Announcement,
    Awaited,
    Claim,
    EventKind,
    ExpectedRuns,
    FailureReason,
    ItemsChunk,
    Job,
    Lease,
    Offer,
    PartialWrite,
    Reported,
    Status,
    StepRecord,
    Unserved,
    Weights,
    Withdrawal,
    WorkerState,
)
from ..domain.errors import (
    LastTry,
    LeaseLost,
    RecordDamaged,
    StepsReported,
    StoreUnavailable,
)
from ..domain.log_fields import fields
from .accounting import work_text
from .accounting_scripts import AccountingScripts
from .batches import Reply
from .claim_order import ClaimOrder
from .claims import decode_claim
from .connect import Client
from .events import lasting_subscription
from .item_scripts import KEPT, ItemScripts
from .job_delivery import TRY, JobDelivery
from .keys import from_member, new_process, partition_of
from .offers import text_of
from .partial_scripts import PartialScripts
from .records import decode_steps, encode_steps
from .retries import Retries
from .scripts import Scripts
from .store_observer import StoreObserver, Unwatched
from .store_rules import GONE_AFTER, LIVE_PATIENCE, StoreRules
from .upkeep import Upkeep
from .worker_batches import worker_batches
from .worker_registry import about_of

log = logging.getLogger(__name__)

MAX_TRIES = 3
_PATIENCE_US = round(LIVE_PATIENCE * 1e6)
_LOST = "worker lost: in each try it ended, was blocked or lost Redis"
"""The error of a run whose tries are used up."""


class RedisJobQueue:
    """Job queue on Redis Streams, one a partition. Satisfies `worker.ports.JobQueue`."""

    def __init__(
        self,
        client: Client,
        blocking: Client,
        rules: StoreRules,
        *,
        lease: float,
        budget: float,
        idle: float = GONE_AFTER,
        observer: StoreObserver | None = None,
        expected: ExpectedRuns = dict,
        costs: ExpectedRuns = dict,
        weights: Weights = dict,
    ) -> None:
        """Wait for jobs on `blocking`, do all else on `client`; leases last `lease` seconds.

        Everything but waiting for jobs is tried for `budget` seconds, to outlast a short outage.
        Consumers without jobs are removed when they were silent for `idle` seconds. Claims use
        `expected` to find runs that cannot be ready in time. They share the workers by `weights`
        and by `costs`, the time that runs have a slot.
        """
        self.partitions = rules.partitions
        self._blocking = blocking
        self._observer = observer or Unwatched()
        self._batches = worker_batches(
            client, rules, budget=min(TRY, budget), observer=self._observer
        )
        self._scripts = Scripts(self._batches)
        self._items = ItemScripts(self._batches)
        self._accounting = AccountingScripts(self._batches)
        self._partial_scripts = PartialScripts(self._batches)
        self._retries = Retries(budget)
        self._failure_ttl_us = round(rules.failure_ttl * 1e6)
        self._keys = rules.keys(client)
        self._order = ClaimOrder(expected, costs, weights)
        self._delivery = JobDelivery(
            client,
            blocking,
            self._scripts,
            self._keys,
            lease=lease,
            idle=idle,
            retries=self._retries,
            observer=self._observer,
            order=self._order,
        )
        self._upkeep = Upkeep(self._scripts, self._retries, self._observer)
        self._process = new_process()

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the clients are their opener's."""
        await self._batches.aclose()

    async def prepare_queue(self) -> None:
        """Create missing consumer groups, and remove silent consumers."""
        await self._delivery.prepare()

    async def next_jobs(self, partition: int, worker: str, limit: int, wait: float) -> list[Job]:
        """Return up to `limit` new jobs, after at most `wait` seconds. Raises StoreUnavailable."""
        return await self._delivery.next_jobs(partition, worker, limit, wait)

    async def lost_jobs(self, partition: int, worker: str, limit: int) -> list[Job]:
        """Return up to `limit` jobs that were idle for a whole lease."""
        return await self._delivery.lost_jobs(partition, worker, limit)

    async def offer(self, partition: int, worker: str, offers: Sequence[Offer]) -> int:
        """Publish this worker's offers for one lease; return how many runs were left for it."""
        return await self._delivery.offer(partition, worker, offers)

    async def unserved_jobs(
        self, partition: int, worker: str, offers: Sequence[Offer], limit: int
    ) -> list[Job]:
        """Return up to `limit` jobs for runs that others left for workers with such offers."""
        return await self._delivery.unserved_jobs(partition, worker, offers, limit)

    async def claim(
        self, job: Job, worker: str, offers: Sequence[Offer], *, alone: bool = True
    ) -> Claim | None:
        """Take the run that is needed first, or that of a job that was claimed before.

        None when there is none that a worker with these offers can take, or its record is damaged.
        Raises LastTry.
        """
        call = partial(
            self._scripts.claim,
            self._keys[job.partition],
            None,  # the script binds the job to a run
            entry=job.entry,
            worker=worker,
            # A Redis that hung may receive this call several times; all count as one try.
            token=uuid.uuid4().hex[:12],
            offering=text_of(offers),
            process=self._process,
            alone=int(alone),
            max_tries=MAX_TRIES,
            lost=_LOST,
            patience_us=_PATIENCE_US,
            failure_ttl_us=self._failure_ttl_us,
            expected=self._order.expected,
            costs=self._order.costs,
            weights=self._order.weights,
        )
        reply = await self._retries.run(call)
        if not reply:
            return None
        attempt, taken, run, *rest = reply
        # The claim has bound the job to this run: see _queue.lua.
        key = from_member(taken.decode(errors="replace"))
        job = Job(job.partition, job.entry, key, run.decode(errors="replace"))
        if not attempt:
            self._not_taken(job, rest[0])
            return None
        try:
            return decode_claim(job, attempt, rest)
        except (ValueError, LookupError):
            self._observer.damaged()
            # The record has its `about` line, so callers that wait for the run get its failure.
            attributes = fields("run.failed", job.key, run=job.run, error="its record is damaged")
            log.error("a run has failed: the record of %s is damaged", job.key, extra=attributes)  # noqa: TRY400
            with suppress(LeaseLost):
                await self.finish(
                    Lease(job, attempt),
                    (),
                    Status.FAILED,
                    "its record is damaged",
                    FailureReason.RECORD_DAMAGED,
                )
            return None

    def _not_taken(self, job: Job, why: bytes) -> None:
        """Log why a run was not taken. Raises LastTry."""
        match why:
            case b"last":
                raise LastTry(str(job.key))
            case b"lost":
                self._observer.given_up()
                attributes = fields("run.failed", job.key, run=job.run, error=_LOST)
                log.error(
                    "%s has failed: its workers were lost too often", job.key, extra=attributes
                )
            case _:
                self._observer.damaged()
                attributes = fields("job.dropped", job.key, run=job.run)
                log.error("a job is dropped: %s", RecordDamaged(str(job.key)), extra=attributes)

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """Keep ended steps and show running ones. Raises LeaseLost and StepsReported."""
        await self._write(lease, ended, running, "", None, "", None)

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        """Keep ended steps and end the run. Raises LeaseLost and StepsReported.

        The run's namespace pays for `slot_seconds`; None means for the time since its claim.
        """
        await self._write(lease, ended, (), status.value, failure_reason, error, slot_seconds)

    async def _write(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        running: Sequence[StepRecord],
        end_status: str,
        failure_reason: FailureReason | None,
        error: str,
        slot_seconds: float | None,
    ) -> None:
        held = await self._held(
            partial(
                self._scripts.commit,
                self._keys[lease.job.partition],
                lease.job.key,
                *encode_steps([*ended, *running]),
                run_id=lease.job.run,
                attempt=lease.attempt,
                entry=lease.job.entry,
                ended_steps=",".join(record.name for record in ended) or "-",
                work=work_text(ended),
                degraded=",".join(record.name for record in ended if record.degraded),
                end_status=end_status,
                error_reason=failure_reason or "-",
                error_text=error,
                slot_us=-1 if slot_seconds is None else round(slot_seconds * 1e6),
                failure_ttl_us=self._failure_ttl_us,
            )
        )
        if not held:
            raise LeaseLost(str(lease.job.key))
        if isinstance(held, list):
            raise StepsReported(list(decode_steps(held)))

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        """Keep items of a running step; False when it has ended. Raises LeaseLost."""
        held = await self._held(
            partial(self._items.keep, self._keys[lease.job.partition], lease, chunk)
        )
        if not held:
            raise LeaseLost(str(lease.job.key))
        return bool(held == KEPT)

    async def append(self, lease: Lease, write: PartialWrite) -> int:
        """Keep what a step has given; return how much of it is kept. Raises LeaseLost."""
        kept = await self._partial_scripts.append(self._keys[lease.job.partition], lease, write)
        if kept < 0:
            raise LeaseLost(str(lease.job.key))
        return kept

    async def renew(self, leases: Sequence[Lease], worker: str) -> list[Lease]:
        """Renew all leases at once; return those that no longer hold."""
        held = await asyncio.gather(*(self._renew(lease, worker) for lease in leases))
        return [lease for lease, holds in zip(leases, held, strict=True) if not holds]

    async def _renew(self, lease: Lease, worker: str) -> Any:
        return await self._held(
            partial(
                self._scripts.renew,
                self._keys[lease.job.partition],
                lease.job.key,
                run_id=lease.job.run,
                attempt=lease.attempt,
                entry=lease.job.entry,
                worker=worker,
                patience_us=_PATIENCE_US,
            )
        )

    async def release(self, lease: Lease) -> None:
        """Put the run back into the queue. Does nothing when the lease no longer holds."""
        await self._held(
            partial(
                self._scripts.release,
                self._keys[lease.job.partition],
                lease.job.key,
                run_id=lease.job.run,
                attempt=lease.attempt,
                entry=lease.job.entry,
            )
        )

    async def count_stopped(self, lease: Lease, stopped: StepRecord) -> None:
        """Count the work of a step whose result no run takes, unless its run goes on elsewhere.

        It is tried once: the ledger misses what an outage hides, and counts nothing twice.
        """
        try:
            await self._accounting.count_stopped(
                self._keys[lease.job.partition],
                lease.job.key,
                run_id=lease.job.run,
                work=work_text([stopped]),
            )
        except StoreUnavailable as error:
            log.debug("work of %s is not counted: %s", lease.job.key, error)

    async def sweep(self) -> None:
        """Forget expired runs, which frees memory without a start; mend broken indexes."""
        await self._upkeep.sweep(self._keys)

    async def heartbeat(self, state: WorkerState, ttl: float) -> None:
        """Register this worker for `ttl` seconds, for operators; tried once, the next follows."""
        await self._beat(state.name, about_of(state), ttl)

    async def _beat(self, worker: str, about: str, ttl: float) -> None:
        first = self._keys[0]
        ttl_us = round(ttl * 1e6)
        await self._scripts.heartbeat(
            first, None, registry=first.workers, worker=worker, about=about, ttl_us=ttl_us
        )

    async def deregister(self, worker: str) -> None:
        """Requeue this worker's jobs, end its consumers, and remove it from the list of workers."""
        for keys in self._keys:
            await self._retries.run(partial(self._scripts.deregister, keys, None, worker=worker))
        # Last: the hand-over of jobs is more urgent than the list of workers.
        await self._retries.run(partial(self._beat, worker, "", 0))

    @asynccontextmanager
    async def withdrawals(
        self,
    ) -> AsyncIterator[AsyncIterator[Withdrawal | Reported | Awaited | Unserved]]:
        """Yield withdrawn runs, reported and awaited steps, unserved classes, as announced."""
        sections = [[keys.events_of(self._process), keys.unserved] for keys in self._keys]
        if not isinstance(self._blocking, RedisCluster):
            sections = [[channel for channels in sections for channel in channels]]
        async with lasting_subscription(self._blocking, sections) as announcements:
            yield _withdrawals(announcements, self.partitions)

    async def _held(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the reply of a fenced script; 0 for a damaged record, which proves no lease."""
        try:
            return await self._retries.run(call)
        except RecordDamaged as error:
            log.error("a run is given up: %s", error)  # noqa: TRY400  # no bug here
            return 0


async def _withdrawals(
    announcements: AsyncIterator[Announcement], partitions: int
) -> AsyncIterator[Withdrawal | Reported | Awaited | Unserved]:
    async for announcement in announcements:
        if announcement.replaced:
            yield Withdrawal(announcement.key, announcement.replaced, replaced=True)
        elif announcement.kind in (EventKind.CANCELLED, EventKind.DROPPED):
            yield Withdrawal(announcement.key, announcement.run)
        elif announcement.kind is EventKind.REPORTED:
            yield Reported(announcement.key, announcement.run, announcement.steps)
        elif announcement.kind is EventKind.AWAITED:
            yield Awaited(announcement.key, announcement.run, announcement.steps)
        elif announcement.kind is EventKind.UNSERVED:
            (runs_class,) = announcement.steps
            yield Unserved(partition_of(announcement.key, partitions), runs_class)
