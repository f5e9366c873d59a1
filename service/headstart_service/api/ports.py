"""What the API needs from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..domain import (
    Cancelled,
    Report,
    RunKey,
    RunPlan,
    RunSummary,
    Snapshot,
    Started,
    Stats,
    Status,
    StepRecord,
)


class RunStore(Protocol):
    """Runs and their results. Every method raises StoreUnavailable when the store is away."""

    async def start(
        self,
        key: RunKey,
        plan: RunPlan,
        ttl: float,
        *,
        restart: bool,
        request_id: str = "",
        needed_in: float | None = None,
    ) -> Started:
        """Start, join or reuse a run whose results live `ttl` seconds.

        They are needed so many seconds from now, or at once. A repetition of the `request_id` that
        made the run changes nothing.
        """
        ...

    async def read(self, key: RunKey, *, waits: bool = False) -> Snapshot:
        """A run with its results, which counts as reading them. Raises RunNotFound.

        If it is queued and the caller `waits`, it goes before those without a waiting caller.
        """
        ...

    async def status(self, key: RunKey) -> Snapshot:
        """A run without its results. Raises RunNotFound."""
        ...

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End a run, if it has this revision; 0 is any. Raises RunNotFound."""
        ...

    async def report(
        self,
        key: RunKey,
        run: str,
        revision: int,
        runs_class: str,
        needs: Sequence[str],
        record: StepRecord,
    ) -> Report:
        """Keep a caller's result of a step of this run, if it is still wanted.

        Raises RunNotFound.
        """
        ...

    async def list(
        self, namespace: str, statuses: Sequence[Status], after: RunKey | None, limit: int
    ) -> Sequence[RunSummary]:
        """Up to `limit` runs behind `after`."""
        ...

    async def stats(self, namespace: str) -> Stats:
        """How much is kept and queued."""
        ...
