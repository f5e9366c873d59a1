"""The API's store when it is traced: a start is a message that is sent to whichever worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from opentelemetry.trace import SpanKind, Tracer

from ...domain import (
    Cancelled,
    Outcome,
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
from .context import as_text, from_text
from .recent import RecentStarts
from .spans import working

_MADE: Final = (Outcome.STARTED, Outcome.REPLACED)


class Store(Protocol):
    """What the API asks of a store; a start may bring a trace context."""

    async def start(
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
        """Start, join or reuse a run."""
        ...

    async def read(self, key: RunKey, *, waits: bool = False) -> Snapshot:
        """A run with its results."""
        ...

    async def status(self, key: RunKey) -> Snapshot:
        """A run without its results."""
        ...

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End a run, if it has this revision; 0 is any."""
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
        """Keep a caller's result of a step."""
        ...

    async def list(
        self, namespace: str, statuses: Sequence[Status], after: RunKey | None, limit: int
    ) -> Sequence[RunSummary]:
        """Runs behind `after`."""
        ...

    async def stats(self, namespace: str) -> Stats:
        """How much is kept and queued."""
        ...


class TracedStore:
    """A store whose starts are spans, and carry their context along. Raises what the store does."""

    def __init__(self, store: Store, tracer: Tracer, recent: RecentStarts) -> None:
        self._store = store
        self._tracer = tracer
        self._recent = recent

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
        """Start, join or reuse a run. A later start links to the start that made the run."""
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.name": "enqueue",
            "messaging.operation.type": "send",
            "messaging.destination.name": "jobs",
            "headstart.pipeline": plan.pipeline,
        }
        name = f"enqueue {plan.pipeline}"
        with working(self._tracer, name, SpanKind.PRODUCER, attributes) as span:
            own = span.get_span_context()
            started = await self._store.start(
                key,
                plan,
                ttl,
                restart=restart,
                request_id=request_id,
                trace=as_text(own),
                needed_in=needed_in,
            )
            made = started.outcome in _MADE and not started.trace
            made_by = own if made else from_text(started.trace)
            if made_by.is_valid:
                self._recent.note(key, made_by)
            if made_by != own:
                for link in self._recent.links(key):
                    span.add_link(link.context)
            span.set_attribute("headstart.outcome", started.outcome.value)
            return started

    async def read(self, key: RunKey, *, waits: bool = False) -> Snapshot:
        """As the store's."""
        return await self._store.read(key, waits=waits)

    async def status(self, key: RunKey) -> Snapshot:
        """As the store's."""
        return await self._store.status(key)

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """As the store's."""
        return await self._store.cancel(key, revision)

    async def report(
        self,
        key: RunKey,
        run: str,
        revision: int,
        runs_class: str,
        needs: Sequence[str],
        record: StepRecord,
    ) -> Report:
        """As the store's."""
        return await self._store.report(key, run, revision, runs_class, needs, record)

    async def list(
        self, namespace: str, statuses: Sequence[Status], after: RunKey | None, limit: int
    ) -> Sequence[RunSummary]:
        """As the store's."""
        return await self._store.list(namespace, statuses, after, limit)

    async def stats(self, namespace: str) -> Stats:
        """As the store's."""
        return await self._store.stats(namespace)
