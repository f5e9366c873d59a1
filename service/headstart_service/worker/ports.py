"""What a worker needs of the store that keeps the runs; `store` satisfies it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..domain import (
    Awaited,
    Claim,
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
    Withdrawal,
    WorkerState,
)


class ProgressSink(Protocol):
    """Where one run's progress is written, fenced by its lease.

    All raise LeaseLost when the lease no longer holds. Commits raise StepsReported, having written
    nothing, when callers have reported some of these steps.
    """

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """Keep what ended and show what now runs, atomically."""
        ...

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        """Keep what ended and end the run, atomically; a failed one with its reason.

        The run had a slot for `slot_seconds`; None means since its claim.
        """
        ...

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        """Keep items of a step that runs, and show how far it is, atomically.

        Returns False when the step has ended: a caller has reported it. Raises LeaseLost.
        """
        ...

    async def append(self, lease: Lease, write: PartialWrite) -> int:
        """Keep what a step has given before its end; return how much of this try is kept.

        Raises LeaseLost, and StoreUnavailable at once: the caller writes again later.
        """
        ...


class MemoStore(Protocol):
    """Where the results of memoised steps are kept. It never raises: what is away has nothing."""

    async def memo_get(self, namespace: str, digest: str) -> bytes | None:
        """The result of this digest, as a fragment, if this namespace has one that is whole."""
        ...

    async def memo_put(
        self, namespace: str, digest: str, result: bytes, ttl: float | None = None
    ) -> None:
        """Keep a result, if there is a place for it; for `ttl` seconds, or as the store does."""
        ...


class StepRuns(Protocol):
    """What has steps computed by workers of other pools."""

    async def has_ended(
        self, lease: Lease, step: str, digest: str, needs: Sequence[str], lost: bytes
    ) -> bool:
        """Queue the step's run in its pool unless it is there; return whether the step has ended.

        The fragment `lost` reports the step if its workers are lost too often. Raises LeaseLost.
        """
        ...


class JobQueue(ProgressSink, Protocol):
    """Where a worker gets its runs. Partitions are numbered from 0."""

    partitions: int

    async def prepare_queue(self) -> None:
        """Make sure that jobs can be delivered; safe to repeat."""
        ...

    async def next_jobs(
        self, partition: int, worker: str, limit: int, wait: float
    ) -> Sequence[Job]:
        """Up to `limit` new jobs, after waiting at most `wait` seconds for the first."""
        ...

    async def lost_jobs(self, partition: int, worker: str, limit: int) -> Sequence[Job]:
        """Up to `limit` jobs whose worker let its lease run out; they are now `worker`'s."""
        ...

    async def offer(self, partition: int, worker: str, offers: Sequence[Offer]) -> int:
        """Show for a lease which pipelines this worker runs.

        Returns how many runs of these other workers have left, because they do not offer them.
        """
        ...

    async def unserved_jobs(
        self, partition: int, worker: str, offers: Sequence[Offer], limit: int
    ) -> Sequence[Job]:
        """Up to `limit` jobs for such runs; they are now `worker`'s."""
        ...

    async def claim(
        self, job: Job, worker: str, offers: Sequence[Offer], *, alone: bool = True
    ) -> Claim | None:
        """Take the job's run; None when there is nothing that this worker can do for it.

        Raises LastTry when the run is given up if one more worker is lost, unless it is `alone`.
        """
        ...

    async def renew(self, leases: Sequence[Lease], worker: str) -> Sequence[Lease]:
        """Renew these leases; gives back those that no longer hold."""
        ...

    async def release(self, lease: Lease) -> None:
        """Put the run back into the queue, with the steps it has ended."""
        ...

    async def sweep(self) -> None:
        """Forget what has expired."""
        ...

    async def heartbeat(self, state: WorkerState, ttl: float) -> None:
        """Let operators see this worker for `ttl` seconds from now."""
        ...

    async def deregister(self, worker: str) -> None:
        """Take this worker off the queue, and put back what was delivered but not claimed."""
        ...

    async def count_stopped(self, lease: Lease, stopped: StepRecord) -> None:
        """Count the work of a step whose result no run takes; never raises."""
        ...

    def withdrawals(
        self,
    ) -> AbstractAsyncContextManager[AsyncIterator[Withdrawal | Reported | Awaited | Unserved]]:
        """Runs that were cancelled, replaced or left, reported and awaited steps; may miss some."""
        ...
