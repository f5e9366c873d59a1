"""The store as a worker uses it: jobs from the streams, leases, commits, ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from ..base.metric_labels import Eviction
from ..domain import (
    Announcement,
    Claim,
    EventKind,
    Job,
    Lease,
    Offer,
    Reported,
    Status,
    StepRecord,
    StepState,
    Unserved,
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
from .batches import Reply, ScriptBatches, kind_of, unavailable
from .connect import AWAY, WORKER, Client
from .events import subscription
from .keys import GROUP, PartitionKeys, from_member, partition_of
from .layout import StoreLayout
from .offers import text_of
from .redis_store import GONE_MS, LIVE_PATIENCE, StoreRules
from .refusals import passes
from .scripts import SOURCES, Scripts
from .store_observer import StoreObserver, Unwatched
from .worker_registry import about_of

log = logging.getLogger(__name__)

MAX_TRIES = 3
_PATIENCE_US = round(LIVE_PATIENCE * 1e6)
_TRY = 2.5
"""Seconds for one try: enough for the client's own second one."""
_LOST = "worker lost: each try ended or blocked its worker"
"""Why a run fails whose tries are used up."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


class RedisJobQueue:
    """Redis Streams consumer groups, one stream a partition. Satisfies `worker.ports.JobQueue`."""

    def __init__(
        self,
        client: Client,
        blocking: Client,
        rules: StoreRules,
        *,
        lease: float,
        budget: float,
        observer: StoreObserver | None = None,
    ) -> None:
        """Wait for jobs on `blocking`, do all else on `client`; leases last `lease` seconds.

        Everything but waiting for jobs is tried for `budget` seconds, to outlast a short outage.
        """
        self.partitions = rules.partitions
        self._client = client
        self._blocking = blocking
        self._observer = observer or Unwatched()
        self._batches = ScriptBatches(
            client,
            SOURCES,
            budget=min(_TRY, budget),
            connections=WORKER.connections,
            layout=StoreLayout(client, rules.partitions, rules.prefix),
            observer=self._observer,
        )
        self._scripts = Scripts(self._batches)
        self._lease_ms = round(lease * 1000)
        self._budget = budget
        self._failure_ttl_us = round(rules.failure_ttl * 1e6)
        self._keys = rules.keys(client)
        self.expected: Callable[[], str] = str
        """How long runs take, by pipeline, as claim.lua takes it; who knows sets it."""

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the clients are their opener's."""
        await self._batches.aclose()

    async def prepare_queue(self) -> None:
        """Create the consumer groups that do not exist."""
        for keys in self._keys:
            await self._call(partial(self._scripts.prepare, keys, None, idle_ms=GONE_MS))

    async def next_jobs(self, partition: int, worker: str, limit: int, wait: float) -> list[Job]:
        """New jobs; the group is made anew when a flush or a failover has lost it."""
        keys = self._keys[partition]
        block = round(wait * 1000) or None  # to Redis, 0 means for ever
        try:
            async with asyncio.timeout(wait + 5):
                reply: Any = await self._blocking.xreadgroup(
                    GROUP, worker, {keys.jobs: ">"}, count=limit, block=block
                )
        except AWAY as error:
            self._observer.failed("xreadgroup", 1, kind_of(error))
            raise await self._healed(error) from error
        return [job for _, entries in reply for job in await self._jobs(partition, entries)]

    async def lost_jobs(self, partition: int, worker: str, limit: int) -> list[Job]:
        """Jobs idle for a whole lease: nobody has renewed them."""
        jobs: list[Job] = []
        position: Any = "0-0"
        while len(jobs) < limit:
            # One call looks at a part of what is delivered only: the lost may be behind it.
            position, entries = await self._reclaim(
                self._keys[partition], worker, position, limit - len(jobs)
            )
            jobs += await self._taken(partition, await self._jobs(partition, entries))
            if position == b"0-0":
                break
        if jobs:
            self._observer.reclaimed(len(jobs))
        return jobs

    async def _reclaim(
        self, keys: PartitionKeys, worker: str, position: Any, limit: int
    ) -> tuple[Any, Any]:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._budget):
                reply = await self._client.xautoclaim(
                    keys.jobs, GROUP, worker, self._lease_ms, position, count=limit
                )
            self._observer.trip("xautoclaim", 1, time.perf_counter() - began)
        except AWAY as error:
            self._observer.failed("xautoclaim", 1, kind_of(error))
            raise await self._healed(error) from error
        return reply[0], reply[1]

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
            None,  # which run it is for is settled by the script
            entry=job.entry,
            worker=worker,
            # A Redis that hung may get this several times, and each is no try of its own.
            token=uuid.uuid4().hex[:12],
            offering=text_of(offers),
            alone=int(alone),
            max_tries=MAX_TRIES,
            lost=_LOST,
            patience_us=_PATIENCE_US,
            failure_ttl_us=self._failure_ttl_us,
            expected=self.expected(),
        )
        reply = await self._call(call)
        if not reply:
            return None
        attempt, taken, run, *rest = reply
        # Which run it is for is settled only now: see _lib.lua.
        key = from_member(taken.decode(errors="replace"))
        job = Job(job.partition, job.entry, key, run.decode(errors="replace"))
        if not attempt:
            self._not_taken(job, rest[0])
            return None
        try:
            return _claim(job, attempt, rest)
        except (ValueError, LookupError):
            self._observer.damaged()
            # The record has its head, so who waits for the run can be told.
            told = fields("run.failed", job.key, run=job.run, error="its record is damaged")
            log.error("a run has failed: the record of %s is damaged", job.key, extra=told)  # noqa: TRY400
            with suppress(LeaseLost):
                await self.finish(Lease(job, attempt), (), Status.FAILED, "its record is damaged")
            return None

    def _not_taken(self, job: Job, why: bytes) -> None:
        """Tell why a run was not taken. Raises LastTry."""
        match why:
            case b"last":
                raise LastTry(str(job.key))
            case b"lost":
                self._observer.given_up()
                told = fields("run.failed", job.key, run=job.run, error=_LOST)
                log.error("%s has failed: its workers were lost too often", job.key, extra=told)
            case _:
                self._observer.damaged()
                told = fields("job.dropped", job.key, run=job.run)
                log.error("a job is dropped: %s", RecordDamaged(str(job.key)), extra=told)

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """Keep ended steps and show running ones. Raises LeaseLost and StepsReported."""
        await self._write(lease, ended, running, "", "")

    async def finish(
        self, lease: Lease, ended: Sequence[StepRecord], status: Status, error: str
    ) -> None:
        """Keep ended steps and end the run. Raises LeaseLost and StepsReported."""
        await self._write(lease, ended, (), status.value, error)

    async def _write(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        running: Sequence[StepRecord],
        end_status: str,
        error: str,
    ) -> None:
        fields: list[str | bytes] = []
        for record in (*ended, *running):
            fields += (f"s:{record.name}", record.state.value.encode() + record.fragment)
        held = await self._held(
            partial(
                self._scripts.commit,
                self._keys[lease.job.partition],
                lease.job.key,
                *fields,
                run_id=lease.job.run,
                attempt=lease.attempt,
                entry=lease.job.entry,
                ended_steps=",".join(record.name for record in ended) or "-",
                work=work_text(ended),
                end_status=end_status,
                error_text=error,
                failure_ttl_us=self._failure_ttl_us,
            )
        )
        if not held:
            raise LeaseLost(str(lease.job.key))
        if isinstance(held, list):
            taken = [
                _step(field, value) for field, value in zip(held[::2], held[1::2], strict=True)
            ]
            raise StepsReported(taken)

    async def renew(self, leases: Sequence[Lease], worker: str) -> list[Lease]:
        """Renew all at once; those that no longer hold come back."""
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

    async def offer(self, partition: int, worker: str, offers: Sequence[Offer]) -> int:
        """Show for a lease what this worker offers; returns how many runs were left for it."""
        left: int = await self._call(
            partial(
                self._scripts.offer,
                self._keys[partition],
                None,
                worker=worker,
                offering=text_of(offers),
                ttl_us=self._lease_ms * 1000,
            )
        )
        return left

    async def unserved_jobs(
        self, partition: int, worker: str, offers: Sequence[Offer], limit: int
    ) -> list[Job]:
        """Up to `limit` jobs for runs that other workers have left for workers with such offers."""
        reply = await self._call(
            partial(
                self._scripts.take_unserved,
                self._keys[partition],
                None,
                worker=worker,
                offering=text_of(offers),
                limit=limit,
            )
        )
        found = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return [
            Job(
                partition,
                entry.decode(),
                from_member(name.decode(errors="replace")),
                run.decode(errors="replace"),
            )
            for entry, name, run in found
        ]

    async def sweep(self) -> None:
        """Forget what has expired, so that memory is given back though nobody starts anything.

        Mends what was deleted beside the records.
        """
        for keys in self._keys:
            more = 1
            while more:  # each call forgets a bounded number: others are served between them
                expired, more, broken = await self._call(partial(self._scripts.sweep, keys, None))
                if expired:
                    self._observer.evicted(Eviction.EXPIRED, expired)
                if broken:
                    await self._reindex(keys)

    async def _reindex(self, keys: PartitionKeys) -> None:
        """Mend a partition's indexes by its records; each call looks at a bounded number."""
        mended = 0
        for index in ("-", *Status, "expiry"):
            cursor = b"0"
            while True:
                call = partial(self._scripts.reindex, keys, None, index=index, cursor=cursor)
                cursor, found = await self._call(call)
                mended += found
                if cursor == b"0":
                    break
        if mended:
            log.error(
                "indexes of partition %d mended: %d entries were missing or wrong; is Redis' "
                "maxmemory-policy noeviction, and does nobody else delete its keys?",
                *(keys.partition, mended),
            )

    async def beat(self, state: WorkerState, ttl: float) -> None:
        """Let operators see this worker for `ttl` seconds from now; tried once: it comes again."""
        await self._beat(state.name, about_of(state), ttl)

    async def _beat(self, worker: str, about: str, ttl: float) -> None:
        first = self._keys[0]
        ttl_us = round(ttl * 1e6)
        await self._scripts.beat(
            first, None, roster=first.workers, worker=worker, about=about, ttl_us=ttl_us
        )

    async def leave(self, worker: str) -> None:
        """Requeue what was delivered to this worker, end its consumers, and show it no more."""
        for keys in self._keys:
            await self._call(partial(self._scripts.leave, keys, None, worker=worker))
        # Last: what is only shown must not stand before what is handed over.
        await self._call(partial(self._beat, worker, "", 0))

    @asynccontextmanager
    async def withdrawals(self) -> AsyncIterator[AsyncIterator[Withdrawal | Reported | Unserved]]:
        """Runs that were cancelled, replaced or left by others; steps that callers reported."""
        channels = [keys.events for keys in self._keys]
        async with subscription(self._blocking, channels) as announcements:
            yield _withdrawals(announcements, self.partitions)

    async def _jobs(self, partition: int, entries: Any) -> list[Job]:
        """Jobs from stream entries; what nobody here has queued is taken off the stream."""
        jobs = []
        for entry, content in entries:
            try:
                if content:  # an entry that was deleted while it was pending has none
                    jobs.append(_job(partition, entry, content))
            except (ValueError, LookupError):
                self._observer.damaged()
                log.error("not a job of ours is dropped: entry %r, %.200r", entry, content)  # noqa: TRY400
                keys = self._keys[partition]
                await self._call(partial(self._scripts.drop, keys, None, entry=entry))
        return jobs

    async def _taken(self, partition: int, jobs: list[Job]) -> list[Job]:
        """The jobs with the runs that they were claimed for, where they were."""
        if not jobs:
            return jobs

        async def read() -> Any:
            try:
                async with asyncio.timeout(_TRY):
                    return await self._client.hmget(
                        self._keys[partition].tickets, [job.entry for job in jobs]
                    )
            except AWAY as error:
                self._observer.failed("hmget", 1, kind_of(error))
                raise unavailable(error) from error

        # They are this worker's by now: without a second try they would wait for another lease.
        tickets = await self._call(read)
        return [_of_ticket(job, text) for job, text in zip(jobs, tickets, strict=True)]

    async def _held(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """As `_call`, of a fenced script: a damaged record tells no lease, so none holds."""
        try:
            return await self._call(call)
        except RecordDamaged as error:
            log.error("a run is given up: %s", error)  # noqa: TRY400  # no bug here
            return 0

    async def _healed(self, error: Exception) -> StoreUnavailable:
        if str(error).startswith("NOGROUP"):
            await self.prepare_queue()
        return unavailable(error)

    async def _call(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply, after as many tries as the budget allows: repeating a script does no harm."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._budget
        pause = _FIRST_PAUSE
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                if not passes(error.__cause__) or clock() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


async def _withdrawals(
    announcements: AsyncIterator[Announcement], partitions: int
) -> AsyncIterator[Withdrawal | Reported | Unserved]:
    async for announcement in announcements:
        if announcement.replaced:
            yield Withdrawal(announcement.key, announcement.replaced, replaced=True)
        elif announcement.kind is EventKind.CANCELLED:
            yield Withdrawal(announcement.key, announcement.run)
        elif announcement.kind is EventKind.REPORTED:
            yield Reported(announcement.key, announcement.run, announcement.steps)
        elif announcement.kind is EventKind.UNSERVED:
            (runs_class,) = announcement.steps
            yield Unserved(partition_of(announcement.key, partitions), runs_class)


def _job(partition: int, entry: bytes, fields: Any) -> Job:
    """A job from a stream entry. Where that names no run, the entry's id stands for it."""
    run = fields.get(b"run", entry).decode()
    key = from_member(fields[b"member"].decode())
    return Job(partition, entry.decode(), key, run)


def _of_ticket(job: Job, ticket: bytes | None) -> Job:
    """The job with the run that it was claimed for; as it is when that cannot be told."""
    _, _, claimed = (ticket or b"").partition(b" ")
    run, _, name = claimed.partition(b" ")
    try:
        return (
            Job(job.partition, job.entry, from_member(name.decode()), run.decode()) if name else job
        )
    except ValueError:
        return job


def _step(field: bytes, value: bytes) -> StepRecord:
    """A step as its field holds it. Raises ValueError or LookupError for a damaged one."""
    state = StepState(chr(value[0]))
    return StepRecord(field.decode().removeprefix("s:"), state, value[1:])


def _claim(job: Job, attempt: int, reply: Reply) -> Claim:
    """A claim as claim.lua gives it. Raises ValueError or LookupError for a damaged record."""
    revision, pipeline, inputs, at_us, *fields = reply
    if inputs is None:
        raise ValueError("no inputs")
    ended = {}
    trace, fresh = "", False
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        if field == b"fresh":
            fresh = True
            continue
        if field == b"trace":
            trace = value.decode(errors="replace")
            continue
        step = _step(field, value)
        if not step.state.ended:
            raise ValueError(f"{step.name} has not ended")
        ended[step.name] = step
    return Claim(
        Lease(job, attempt), revision, pipeline.decode(), inputs, ended, at_us, trace, fresh
    )
