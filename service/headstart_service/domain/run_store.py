"""What an API process needs from the store: one port for its methods, its live page and tracing."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from .accounting import Stats
from .events import Awaits
from .partials import Cursors, Partials
from .queue import WorkerState
from .runs import (
    Cancelled,
    Inspection,
    Report,
    RunKey,
    RunPlan,
    RunsPage,
    RunSummary,
    Snapshot,
    Started,
    Status,
    StepRecord,
    Touched,
)


class StartRun(Protocol):
    """Starts a run. Raises StoreUnavailable, CapacityExhausted or RecordDamaged."""

    async def __call__(
        self,
        key: RunKey,
        plan: RunPlan,
        ttl: float,
        *,
        restart: bool,
        request_id: str = "",
        trace: str = "",
        needed_in: float | None = None,
    ) -> Started:
        """Start, join or reuse a run whose results live `ttl` seconds.

        They are needed so many seconds from now, or at once. A repetition of the `request_id` that
        made the run changes nothing. The record keeps the context `trace` for the run's worker.
        """
        ...


class RunStore(Protocol):
    """Runs and their results. Every method raises StoreUnavailable when the store is away."""

    @property
    def start(self) -> StartRun:
        """Start, join or reuse a run."""
        ...

    async def read(
        self,
        key: RunKey,
        *,
        awaits: Awaits = Awaits.NOTHING,
        required: AbstractSet[str] = frozenset(),
    ) -> Snapshot:
        """Return a run with its results, which counts as reading them. Raises RunNotFound.

        What the caller `awaits` is announced to this process from then on, and so is what outdates
        an ended run. A queued run goes before runs for which no caller waits. `required` are the
        steps for which callers wait, or ALL_STEPS: these begin at once, even if they settle. What
        they call is hurried if the run was to be needed later.
        """
        ...

    async def read_partials(
        self, key: RunKey, cursors: Cursors, *, follow: bool, tail: int = 0
    ) -> Partials:
        """Return what a run's steps have given beyond these cursors. Raises RunNotFound.

        With a `tail`, only so many of each step's last bytes. With `follow`, what they give from
        now on is announced to this process.
        """
        ...

    async def inspect(self, key: RunKey, *, largest: int = 0) -> Inspection:
        """Return a run with its results; this does not count as reading. Raises RunNotFound.

        With `largest`, the values take at most so many bytes: the largest steps are left out.
        """
        ...

    async def status(self, key: RunKey) -> Snapshot:
        """Return a run without its results. Raises RunNotFound."""
        ...

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End a run, if it has this revision; 0 is any. Raises RunNotFound."""
        ...

    async def delete(self, key: RunKey, revision: int = 0) -> bool:
        """Delete a run, if it has this revision; 0 is any. Return whether there was one."""
        ...

    async def touch(self, key: RunKey, ttl: float, revision: int = 0) -> Touched:
        """Let a run live for `ttl` seconds more, after now and after its end.

        0 as `revision` is any. Raises RunNotFound.
        """
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
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> Sequence[RunSummary]:
        """Return up to `limit` runs behind `after`, by name; no namespace means all.

        When `quiet`, a damaged record is neither counted nor logged.
        """
        ...

    async def page(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        key_prefix: str = "",
        pipeline: str = "",
    ) -> RunsPage:
        """Return a page of the runs whose keys begin so, of one pipeline or of all.

        A `key_prefix` needs a namespace. With a `pipeline` the page may be short.
        """
        ...

    async def stats(self, namespace: str) -> Stats:
        """Return how much is kept and queued; no namespace means all."""
        ...

    async def workers(self, limit: int) -> Sequence[WorkerState]:
        """Return what up to `limit` workers have registered."""
        ...
