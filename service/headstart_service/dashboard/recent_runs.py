"""Which runs the live page shows, and what was last seen of each: bounded, filled by looking.

The store is read, and announces runs, only while a viewer is there. Of each run only what was
announced to have changed is read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from ..domain import Announcement, EventKind, RunKey, RunSummary, Status
from ..domain.errors import RecordDamaged, RunNotFound
from ..domain.run_store import RunStore
from ..pipeline.registry import Registry
from .failures import FailureLog
from .run_view import RunView, run_view, why_it_waits

_MAX_ENDED: Final = 400
_MAX_SEEN: Final = 500
_MAX_UNREADABLE: Final = 500
_READS: Final = 32
"""Runs that are read for one picture at most."""
_LARGEST: Final = 64 * 1024
"""Bytes that are read of a run at most: its steps' reports are wanted here, not their results."""
_DURATIONS: Final = 256
"""Durations that are remembered of each step."""
_MAX_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class _Duration:
    namespace: str
    seconds: float
    failed: bool


class RecentRuns:
    """The runs that were announced or read."""

    def __init__(self, runs: RunStore, registry: Registry) -> None:
        self._runs = runs
        self._registry = registry
        self._ended: OrderedDict[RunKey, None] = OrderedDict()
        self._seen: OrderedDict[RunKey, RunView] = OrderedDict()
        self._stale: set[RunKey] = set()
        self._looking: set[RunKey] = set()
        self._unreadable: OrderedDict[RunKey, None] = OrderedDict()
        self._durations: OrderedDict[tuple[str, str], deque[_Duration]] = OrderedDict()
        self.failures = FailureLog()

    def receive(self, announcement: Announcement) -> None:
        """Note an announcement."""
        key = announcement.key
        self._unreadable.pop(key, None)
        if key in self._seen or key in self._looking:
            self._stale.add(key)
        if announcement.kind.ends_run:
            self._ended[key] = None
            self._ended.move_to_end(key)
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
        elif announcement.kind is EventKind.STARTED:
            self._ended.pop(key, None)

    def regained(self) -> None:
        """Announcements were lost: nothing that was seen is sure to be the latest."""
        self._unreadable.clear()
        self._stale.update(self._seen, self._looking)

    def remember(self, ended: Iterable[RunSummary]) -> None:
        """Add runs that ended before this process received any announcement."""
        for summary in sorted(ended, key=lambda each: -each.completed_us):
            if summary.key not in self._ended and len(self._ended) < _MAX_ENDED:
                self._ended[summary.key] = None
                self._ended.move_to_end(summary.key, last=False)

    def latest(self, scope: frozenset[str] | None, limit: int) -> list[RunKey]:
        """The runs of these namespaces that ended last, the latest first."""
        found: list[RunKey] = []
        for key in reversed(self._ended):
            if scope is None or key.namespace in scope:
                found.append(key)
                if len(found) == limit:
                    break
        return found

    def note_failed(self, failed: Iterable[RunSummary]) -> None:
        """Runs that a list shows as failed, whether each was looked at or not."""
        for run in failed:
            self.failures.add(
                run.key, run.revision, run.created_us, run.pipeline, run.completed_us, run.error
            )

    async def look(self, keys: Sequence[RunKey]) -> None:
        """See what is new of these, as far as one look may. Raises StoreUnavailable."""
        wanted = [key for key in keys if self._is_news(key)][:_READS]
        # Before the reads: an announcement that arrives meanwhile makes its run stale again.
        self._stale.difference_update(wanted)
        self._looking.update(wanted)
        try:
            found = await asyncio.gather(
                *(self._see(key) for key in wanted), return_exceptions=True
            )
            for key, result in zip(wanted, found, strict=True):
                if isinstance(result, RunView):
                    self._keep(result)
                elif isinstance(result, BaseException):
                    self._stale.add(key)
        finally:
            self._looking.difference_update(wanted)
            self._stale.difference_update(key for key in wanted if key not in self._seen)
        for result in found:
            if isinstance(result, BaseException):
                raise result

    def _is_news(self, key: RunKey) -> bool:
        """Whether the store knows more of this run than was seen of it."""
        if key in self._unreadable:
            return False
        seen = self._seen.get(key)
        if seen is None or key in self._stale or seen.has_steps_without_workers:
            return True
        return key in self._ended and not seen.status.ended

    def seen(self, key: RunKey) -> RunView | None:
        """What was last seen of a run."""
        return self._seen.get(key)

    def why_it_waits(self, run: RunSummary) -> str:
        """Why no worker takes a run that was listed just now; empty if one does or may."""
        return why_it_waits(run, self._registry)

    def steps(self, scope: frozenset[str] | None) -> list[dict[str, Any]]:
        """How long the steps of the runs that were seen took, in seconds."""
        reported = []
        for (pipeline, step), durations in self._durations.items():
            own = [d for d in durations if scope is None or d.namespace in scope]
            took = sorted(d.seconds for d in own)
            if took:
                reported.append(
                    {
                        "pipeline": pipeline,
                        "step": step,
                        "count": len(took),
                        "failed": sum(d.failed for d in own),
                        "p50": took[len(took) // 2],
                        "p95": took[min(len(took) - 1, len(took) * 95 // 100)],
                        "max": took[-1],
                    }
                )
        return sorted(reported, key=lambda each: (each["pipeline"], self._place(each)))

    def _place(self, step: dict[str, Any]) -> int:
        """Where in its pipeline a step stands; behind all others, if it no longer does."""
        pipeline = self._registry.find(step["pipeline"])
        order = list(pipeline.order) if pipeline else []
        return order.index(step["step"]) if step["step"] in order else len(order)

    async def _see(self, key: RunKey) -> RunView | None:
        try:
            look = await self._runs.inspect(key, largest=_LARGEST)
            return run_view(look, self._registry)
        except RunNotFound:
            pass
        except (RecordDamaged, DecodeError):
            # This run is read again only after its next announcement.
            self._unreadable[key] = None
            if len(self._unreadable) > _MAX_UNREADABLE:
                self._unreadable.popitem(last=False)
        # A run that was read at its end stays on the page; its view has the time of its expiry.
        seen = self._seen.get(key)
        if seen is None or not seen.status.ended:
            self._seen.pop(key, None)
            self._ended.pop(key, None)
        return None

    def _keep(self, view: RunView) -> None:
        before = self._seen.get(view.key)
        self._seen[view.key] = view
        self._seen.move_to_end(view.key)
        if len(self._seen) > _MAX_SEEN:
            gone, _ = self._seen.popitem(last=False)
            self._stale.discard(gone)
        if not view.status.ended or (before is not None and before.same_end(view)):
            return
        self._note(view)

    def _note(self, view: RunView) -> None:
        """A run is seen at its end for the first time."""
        for step in view.steps:
            elapsed = step["elapsed"]
            if elapsed is None or step["kept"] or step["memoised"]:
                continue
            name = (view.pipeline, str(step["name"]))
            if name not in self._durations and len(self._durations) >= _MAX_STEPS:
                self._durations.popitem(last=False)
            took = self._durations.setdefault(name, deque(maxlen=_DURATIONS))
            took.append(_Duration(view.key.namespace, elapsed, step["state"] == "failed"))
        if view.status is Status.FAILED:
            errors = [view.error]
        else:
            errors = [f"{s['name']}: {s['error']}" for s in view.steps if s["state"] == "failed"]
        self.failures.add(
            view.key, view.revision, view.created_us, view.pipeline, view.completed_us, *errors
        )
