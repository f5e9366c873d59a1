"""Deliver jobs from the partitions' streams: new ones, lost ones, and those that others left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from ..domain import Job, Offer
from ..domain.errors import StoreUnavailable
from .batches import kind_of, unavailable
from .claim_order import ClaimOrder
from .connect import AWAY, Client
from .keys import GROUP, PartitionKeys, from_member
from .offers import text_of
from .retries import Retries
from .scripts import Scripts
from .store_observer import StoreObserver

log = logging.getLogger(__name__)

TRY: Final = 2.5
"""Seconds for one try: enough for the client's own second one."""


class JobDelivery:
    """Takes jobs from the streams of all partitions, through their consumer groups."""

    def __init__(
        self,
        client: Client,
        blocking: Client,
        scripts: Scripts,
        partitions: Sequence[PartitionKeys],
        *,
        lease: float,
        idle: float,
        retries: Retries,
        observer: StoreObserver,
        order: ClaimOrder,
    ) -> None:
        """Wait for jobs on `blocking`, do all else on `client`.

        A job is lost when it was idle for `lease` seconds. A consumer without jobs is removed when
        it was silent for `idle` seconds.
        """
        self._client = client
        self._blocking = blocking
        self._scripts = scripts
        self._keys = partitions
        self._lease_ms = round(lease * 1000)
        self._idle_ms = round(idle * 1000)
        self._retries = retries
        self._observer = observer
        self._order = order

    async def prepare(self) -> None:
        """Create missing consumer groups, and remove silent consumers."""
        for keys in self._keys:
            call = partial(self._scripts.prepare, keys, None, idle_ms=self._idle_ms)
            await self._retries.run(call)

    async def next_jobs(self, partition: int, worker: str, limit: int, wait: float) -> list[Job]:
        """Return up to `limit` new jobs, after at most `wait` seconds.

        Creates the consumer group anew when a flush or a failover has lost it. Raises
        StoreUnavailable.
        """
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
        """Return up to `limit` jobs that no worker has renewed for a whole lease."""
        jobs: list[Job] = []
        position: Any = "0-0"
        while len(jobs) < limit:
            # One call scans only a part of the delivered jobs: lost jobs may follow in the next
            # part.
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
            async with asyncio.timeout(self._retries.budget):
                reply = await self._client.xautoclaim(
                    keys.jobs, GROUP, worker, self._lease_ms, position, count=limit
                )
            self._observer.trip("xautoclaim", 1, time.perf_counter() - began)
        except AWAY as error:
            self._observer.failed("xautoclaim", 1, kind_of(error))
            raise await self._healed(error) from error
        return reply[0], reply[1]

    async def offer(self, partition: int, worker: str, offers: Sequence[Offer]) -> int:
        """Publish this worker's offers for one lease; return how many runs were left for it."""
        left: int = await self._retries.run(
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
        """Return up to `limit` jobs for runs that others left for workers with such offers."""
        reply = await self._retries.run(
            partial(
                self._scripts.take_unserved,
                self._keys[partition],
                None,
                worker=worker,
                offering=text_of(offers),
                limit=limit,
                costs=self._order.costs,
                weights=self._order.weights,
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

    async def _jobs(self, partition: int, entries: Any) -> list[Job]:
        """Return the jobs of stream entries. Entries of other programs are taken off the stream."""
        jobs = []
        for entry, content in entries:
            try:
                if content:  # a deleted entry that was pending has no fields
                    jobs.append(_job(partition, entry, content))
            except (ValueError, LookupError):
                self._observer.damaged()
                log.error("not a job of ours is dropped: entry %r, %.200r", entry, content)  # noqa: TRY400
                keys = self._keys[partition]
                await self._retries.run(partial(self._scripts.drop, keys, None, entry=entry))
        return jobs

    async def _taken(self, partition: int, jobs: list[Job]) -> list[Job]:
        """Return the jobs with the runs for which they were claimed before, if they were."""
        if not jobs:
            return jobs

        async def read() -> Any:
            try:
                async with asyncio.timeout(TRY):
                    return await self._client.hmget(
                        self._keys[partition].tickets, [job.entry for job in jobs]
                    )
            except AWAY as error:
                self._observer.failed("hmget", 1, kind_of(error))
                raise unavailable(error) from error

        # Redis has delivered these jobs to this worker: without a retry they wait for a whole
        # lease.
        tickets = await self._retries.run(read)
        return [_of_ticket(job, text) for job, text in zip(jobs, tickets, strict=True)]

    async def _healed(self, error: Exception) -> StoreUnavailable:
        if str(error).startswith("NOGROUP"):
            await self.prepare()
        return unavailable(error)


def _job(partition: int, entry: bytes, fields: Any) -> Job:
    """Return the job of a stream entry. The entry's id stands for a run that it does not name."""
    run = fields.get(b"run", entry).decode()
    key = from_member(fields[b"member"].decode())
    return Job(partition, entry.decode(), key, run)


def _of_ticket(job: Job, ticket: bytes | None) -> Job:
    """Return the job with the run of its ticket; unchanged if the ticket names none."""
    _, _, claimed = (ticket or b"").partition(b" ")
    run, _, name = claimed.partition(b" ")
    try:
        return (
            Job(job.partition, job.entry, from_member(name.decode()), run.decode()) if name else job
        )
    except ValueError:
        return job
