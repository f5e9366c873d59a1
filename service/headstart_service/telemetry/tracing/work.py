"""A worker's runs, steps and writes as spans."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ...domain import Claim, FailureReason, ItemsChunk, Lease, PartialWrite, StepRecord
from ...domain import Status as RunStatus
from ...domain.log_fields import inside
from ...worker.ports import ProgressSink
from ...worker.worker_observer import (
    UNWANTED,
    RunEnd,
    RunOutcome,
    StepOutcome,
)
from .context import from_text, log_ids
from .spans import working

_WENT_WELL: Final = (RunEnd.COMPLETED, RunEnd.HANDED_ON)


class TracedWork:
    """An observer that makes spans, each current where its work is done.

    Satisfies `worker.worker_observer.WorkObserver`. A run is the root of its own trace,
    which links to the start that queued it. It may serve several starts and take several tries.
    """

    def __init__(self, tracer: Tracer, worker: str) -> None:
        self._tracer = tracer
        self._worker = worker

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """A run's span."""
        lease = claim.lease
        start = from_text(claim.trace)
        with self._tracer.start_as_current_span(
            f"run {claim.pipeline}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "redis",
                "messaging.operation.name": "run",
                "messaging.operation.type": "process",
                "messaging.destination.name": "jobs",
                "messaging.message.id": lease.job.run,
                "messaging.client.id": self._worker,
                "headstart.namespace": lease.job.key.namespace,
                "headstart.key": lease.job.key.owner.key,
                "headstart.pipeline": claim.pipeline,
                "headstart.revision": claim.revision,
                "headstart.attempt": lease.attempt,
                "headstart.queued_ms": _queued_ms(lease.job.entry),
                "headstart.steps_kept": len(claim.ended),
            },
            links=[Link(start)] if start.is_valid else [],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            finally:
                span.set_attribute("headstart.end", outcome.state)
                if outcome.state is RunEnd.STOPPED and outcome.error == UNWANTED:
                    span.set_attribute("headstart.why", outcome.error)
                elif outcome.state not in _WENT_WELL:
                    span.set_status(Status(StatusCode.ERROR, outcome.error))

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """A step's span, with an event for each try of it that failed."""
        attributes = {"headstart.step": name, "headstart.pipeline": claim.pipeline}
        with self._tracer.start_as_current_span(
            f"step {name}",
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                with inside(log_ids(span)):  # a step's process knows no span
                    yield
            finally:
                _end_step(span, outcome)


def _end_step(span: Span, outcome: StepOutcome) -> None:
    for number, failed in enumerate(outcome.tried, 1):
        attributes: dict[str, str | int] = {"headstart.try": number, "error": failed.error}
        span.add_event("try failed", attributes, failed.ended_ns)
    span.set_attribute("headstart.end", outcome.state)
    span.set_attribute("headstart.tries", outcome.attempts)
    for end, count in outcome.items.items():
        span.set_attribute(f"headstart.items.{end}", count)
    if outcome.error:
        span.set_status(Status(StatusCode.ERROR, outcome.error))


def _queued_ms(entry: str) -> int:
    """Milliseconds since a job was queued, by Redis's clock then and by this machine's now."""
    queued, _, _ = entry.partition("-")
    return max(0, time.time_ns() // 1_000_000 - int(queued)) if queued.isdigit() else 0


class TracedProgress:
    """A ledger whose writes are spans. Satisfies `worker.ports.ProgressSink`."""

    def __init__(self, sink: ProgressSink, tracer: Tracer) -> None:
        self._sink = sink
        self._tracer = tracer

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """As the ledger's."""
        with self._writing("commit", ended):
            await self._sink.commit(lease, ended, running)

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: RunStatus,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        """As the ledger's."""
        with self._writing("finish", ended):
            await self._sink.finish(lease, ended, status, error, failure_reason, slot_seconds)

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        """As the ledger's."""
        with self._writing("keep_items", ()):
            return await self._sink.keep_items(lease, chunk)

    async def append(self, lease: Lease, write: PartialWrite) -> int:
        """As the ledger's, without a span: a step may give a hundred pieces a second."""
        return await self._sink.append(lease, write)

    @contextmanager
    def _writing(self, operation: str, ended: Sequence[StepRecord]) -> Iterator[None]:
        attributes: dict[str, AttributeValue] = {
            "db.system.name": "redis",
            "db.operation.name": operation,
            "headstart.steps": [record.name for record in ended],
            "headstart.bytes": sum(len(record.fragment) for record in ended),
        }
        with working(self._tracer, operation, SpanKind.CLIENT, attributes):
            yield
