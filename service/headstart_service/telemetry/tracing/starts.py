"""Traced starts: each is a message that is sent to whichever worker computes the run."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import SpanKind, Tracer

from ...domain import Outcome, RunKey, RunPlan, Started
from ...domain.run_store import StartRun
from .context import as_text, from_text
from .recent import RecentStarts
from .spans import working

_MADE: Final = (Outcome.STARTED, Outcome.REPLACED)


class TracedStart:
    """Starts runs in spans whose context travels in the record. Raises what `start` raises."""

    def __init__(self, start: StartRun, tracer: Tracer, recent: RecentStarts) -> None:
        self._start = start
        self._tracer = tracer
        self._recent = recent

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
        """Start, join or reuse a run; where another start made it, link to that one."""
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
            started = await self._start(
                key,
                plan,
                ttl,
                restart=restart,
                request_id=request_id,
                trace=trace or as_text(own),
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
