"""Last tries: runs that get the worker to themselves.

A run that kills its worker takes those along that run beside it, each time. The last time there
must be none, or runs that did no harm would be given up with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..domain import Job, Offer
from ..domain.errors import LastTry, StoreUnavailable
from .capacity import Slots
from .held_runs import HeldRuns
from .ports import JobQueue
from .upkeep import ended

log = logging.getLogger(__name__)

_PATIENCE: Final = 60.0
"""Seconds that a last try waits for runs which themselves wait for others.

These may wait for an hour, and the worker takes no jobs meanwhile: then it hands them on.
"""


class LastTries:
    """Runs the last tries of one worker, one after the other."""

    def __init__(
        self,
        queue: JobQueue,
        worker: str,
        slots: Slots,
        runs: HeldRuns,
        offers: Callable[[], Sequence[Offer]],
        lease: float,
    ) -> None:
        """Take the whole room of `slots`, and keep a job that waits for it within each `lease`."""
        self._queue = queue
        self._worker = worker
        self._slots = slots
        self._runs = runs
        self._offers = offers
        self._every = lease / 3
        self._waiting: set[tuple[int, str]] = set()
        """The partition and entry of each job."""
        self._turn = asyncio.Lock()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    async def run(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        """Do `work` on a job as soon as nothing else runs here, unless another worker takes it."""
        delivery = job.partition, job.entry
        if delivery in self._waiting:
            return  # this worker has reclaimed its own job while it waits here
        self._waiting.add(delivery)
        try:
            others = self._turn.locked()
            async with self._turn:
                # Another worker may have taken it behind those before it.
                if not others or await self._keeps(job):
                    await self._alone(job, work)
        finally:
            self._waiting.discard(delivery)

    async def _alone(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        clock = asyncio.get_running_loop().time
        since = clock()
        taking = asyncio.create_task(self._slots.take_all(), name=f"{job.key} alone")
        try:
            while not taking.done():
                await asyncio.wait({taking}, timeout=self._every)
                if not taking.done():
                    if not await self._keeps(job):
                        return
                    if clock() - since >= _PATIENCE:
                        self._hand_on_others(job)
            await work(job)
        finally:
            taking.cancel()
            await ended(taking)
            if not taking.cancelled():
                self._slots.give_back_all()

    async def _keeps(self, job: Job) -> bool:
        """Begin the job's time as this worker's anew; return whether it still is this worker's.

        Else each worker would reclaim it from the one before, and wait for its own runs in vain.
        """
        try:
            claim = await self._queue.claim(job, self._worker, self._offers(), alone=False)
        except (LastTry, StoreUnavailable):
            return True
        if claim is not None:  # it has more tries than this one
            await self._queue.release(claim.lease)
        return False

    def _hand_on_others(self, job: Job) -> None:
        """Stop runs that only wait for others: another worker goes on with them."""
        waiting = [held for held in self._runs.all if not held.computes]
        if waiting:
            log.info("%s has its last try, alone: %d runs are handed on", job.key, len(waiting))
        for held in waiting:
            held.hand_on()
