"""Intake: how a worker gets jobs for the room that it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..domain import Job, Offer
from ..domain.errors import StoreUnavailable
from ..domain.log_fields import fields
from .capacity import Slots
from .ports import JobQueue
from .upkeep import after_others, once

log = logging.getLogger(__name__)

POLL: Final = 1.0
"""Seconds that a request for jobs waits, and the pause after one that failed."""
_WAITED: Final = 0.005
"""Seconds after which a job was not there when it was asked for."""
_TURNS: Final = 3
"""Turns of the loop after a start, in which the job's claim is sent."""

Start = Callable[[Job], None]
"""Begins the work on a job; its slot is given back when that ends."""


class Intake:
    """Gets jobs for free slots: new ones, those of lost workers, and runs that others have left."""

    def __init__(
        self, queue: JobQueue, worker: str, slots: Slots, offers: Callable[[], Sequence[Offer]]
    ) -> None:
        """Take jobs from `queue` as `worker`, for pipelines that `offers` returns now."""
        self._queue = queue
        self._worker = worker
        self._slots = slots
        self._offers = offers
        self._unserved: set[int] = set()
        """Partitions in which runs were left for workers like this one."""
        self._left = asyncio.Event()
        self._refused: dict[int, str] = {}
        """By partition, why the last call for jobs failed."""

    @property
    def problem(self) -> str:
        """Why the last call for jobs failed, in one line; empty when none did."""
        return next(iter(self._refused.values()), "")

    def is_refused(self, partition: int) -> bool:
        """Return whether the last call for this partition's jobs failed."""
        return partition in self._refused

    def note_refusal(self, partition: int, error: StoreUnavailable, what: str) -> None:
        """Remember why there are no jobs; log it when it changes."""
        if self._refused.get(partition) != str(error):
            log.warning("%s: %s", what, error)
        self._refused[partition] = str(error)

    def forget_refusals(self) -> None:
        """Forget why there were no jobs: the store answers again."""
        self._refused.clear()

    def note_unserved(self, partition: int) -> None:
        """Note that other workers have left runs in this partition for workers like this one."""
        self._unserved.add(partition)
        self._left.set()

    async def take_new(self, partition: int, start: Start) -> None:
        """Start a partition's new jobs whenever there is a slot for them."""
        clock, pause = asyncio.get_running_loop().time, 0.0
        while True:
            await asyncio.sleep(pause)
            await self._slots.take()
            free = 1
            # When slots are short, an empty partition must not hold one that the others need.
            short = self._slots.short and self._queue.partitions > 1
            pause = POLL / 20 if short else 0.0
            try:
                wait = 0 if short else POLL
                began = clock()
                for job in await self._queue.next_jobs(partition, self._worker, 1, wait):
                    free, pause = 0, 0.0
                    start(job)
                    await after_others(_TURNS)
                self._refused.pop(partition, None)
                if free or clock() - began > _WAITED:
                    continue
                # A partition that had a job at once may have more.
                free = await self._slots.take_free()
                if free:
                    for job in await self._queue.next_jobs(partition, self._worker, free, 0):
                        free -= 1
                        start(job)
            except StoreUnavailable as error:
                self.note_refusal(partition, error, "no jobs")
                pause = POLL / 4
            finally:
                self._slots.give_back(free)

    async def ask_for_unserved(self, partition: int) -> None:
        """Ask again and again for runs of pools: an announcement of one may be lost."""
        while True:
            self.note_unserved(partition)
            await asyncio.sleep(POLL)

    async def reclaim(self, start: Start) -> None:
        """Start the jobs that other workers have lost, as far as there are slots for them."""
        for partition in range(self._queue.partitions):
            await self._slots.take()
            free = 1
            try:
                free += await self._slots.take_free()
                for job in await self._queue.lost_jobs(partition, self._worker, free):
                    extra = fields("run.reclaimed", job.key, run=job.run, worker=self._worker)
                    log.warning("%s reclaimed: its worker was lost", job.key, extra=extra)
                    free -= 1
                    start(job)
            finally:
                self._slots.give_back(free)

    async def take_unserved(self, start: Start) -> None:
        """Start runs that other workers have left, whenever `note_unserved` names a partition."""
        while True:
            await self._left.wait()
            self._left.clear()
            while self._unserved:
                await once(partial(self._take_unserved_of, self._unserved.pop(), start))

    async def _take_unserved_of(self, partition: int, start: Start) -> None:
        jobs: Sequence[Job] | None = None
        while jobs is None or jobs:
            await self._slots.take()
            free = 1
            try:
                free += await self._slots.take_free()
                try:
                    jobs = await self._queue.unserved_jobs(
                        partition, self._worker, self._offers(), free
                    )
                except StoreUnavailable as error:
                    self.note_refusal(partition, error, "no jobs")
                    return
                self._refused.pop(partition, None)
                for job in jobs:
                    free -= 1
                    start(job)
            finally:
                self._slots.give_back(free)
