"""What the live page shows, once a second, for everybody who sees the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from ..domain import Ledger, RunSummary, Stats, Status
from ..domain.causes import Facts
from ..domain.errors import StoreUnavailable
from ..domain.run_store import RunStore
from .access import View
from .accounting_view import accounting_view
from .call_counters import Counters
from .problems import Look, Problems, ReadFacts
from .recent_runs import RecentRuns

_LIVE: Final = 60
"""Runs that have not ended, of each status, of which a list is shown: the first by name."""
_RECENT: Final = 40
_FAILED: Final = 100
_GROUPS: Final = 20
_WORKERS: Final = 200
_NAMESPACES: Final = 8
"""Namespaces that a viewer's snapshot is read for: each is a question of its own to the store."""
_ENDED: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
_LIVE_STATUSES: Final = (Status.IN_PROGRESS, Status.PENDING)
_SEED: Final = 100
"""Ended runs that are taken over from the store: the first by name, for it lists none by time."""
_MAX_SEEDED: Final = 64


class Snapshots:
    """Makes them, from the counters, the recent runs and bounded reads of the store."""

    def __init__(
        self,
        runs: RunStore,
        book: RecentRuns,
        counters: Counters,
        about: dict[str, Any],
        facts: ReadFacts = Facts,
    ) -> None:
        """`about` is what the page shows of the process: host, version, pipelines, limits.

        `facts` returns what the process knows of its own problems.
        """
        self._runs = runs
        self._book = book
        self._counters = counters
        self._about = about
        self._problems = Problems(facts, runs.stats)
        self._seeded: set[frozenset[str] | None] = set()

    def regained(self) -> None:
        """Announcements were lost: take over what has ended meanwhile."""
        self._seeded.clear()

    def history(self, view: View) -> list[dict[str, Any]]:
        """The seconds that are remembered, the oldest first."""
        return [past.as_json(view.scope, whole=view.whole) for past in self._counters.past]

    async def take(self, view: View) -> dict[str, Any]:
        """Return the present state; `store` is "away" if it could not be read, beside what was."""
        snapshot: dict[str, Any] = {
            "now_us": time.time_ns() // 1000,
            "whole": view.whole,
            "namespaces": None if view.scope is None else sorted(view.scope)[:_NAMESPACES],
            "store": "there",
        }
        if view.whole:
            snapshot["process"] = self._about
            snapshot["calls"] = [
                [method, code, count] for (method, code), count in self._counters.calls.items()
            ]
        try:
            await self._read(view, snapshot)
        except StoreUnavailable as error:
            snapshot["store"] = "away"
            if view.whole:
                snapshot["problems"] = self._problems.away(str(error))
        snapshot["recent"] = [
            seen.as_json()
            for key in self._book.latest(view.scope, _RECENT)
            if (seen := self._book.seen(key)) is not None
        ]
        snapshot["steps"] = self._book.steps(view.scope)
        snapshot["failures"] = self._book.failures.groups(view.scope, _GROUPS)
        if self._counters.past:
            snapshot["second"] = self._counters.past[-1].as_json(view.scope, whole=view.whole)
        return snapshot

    async def _read(self, view: View, snapshot: dict[str, Any]) -> None:
        names = [""] if view.scope is None else sorted(view.scope)[:_NAMESPACES]
        counts: dict[str, int] = {}
        live: list[RunSummary] = []
        ledgers: list[Ledger] = []
        stats = Stats({}, 0)
        for name in names:
            stats = await self._runs.stats(name)
            ledgers += [stats.ledger] if stats.ledger else []
            for status, count in stats.counts.items():
                counts[status.value] = counts.get(status.value, 0) + count
            for status in _LIVE_STATUSES:
                live += await self._list(name, [status], _LIVE)
            failed = await self._list(name, [Status.FAILED], _FAILED)
            self._book.note_failed(failed)
        if view.scope not in self._seeded and len(self._seeded) < _MAX_SEEDED:
            for name in names:
                self._book.remember(await self._list(name, _ENDED, _SEED))
            self._seeded.add(view.scope)
        # Running before waiting runs, each the longest listed first.
        live.sort(key=lambda run: (run.status is Status.PENDING, run.created_us))
        shown = live[:_LIVE]
        await self._book.look([run.key for run in shown])
        await self._book.look(self._book.latest(view.scope, _RECENT))
        snapshot["counts"] = counts
        snapshot["ledger"] = accounting_view(ledgers)
        # `queued_jobs` is of all namespaces: other viewers get the number of their own runs.
        # Step runs are no runs: the figures of pools have them.
        queued = max(stats.queued_jobs - stats.pending_step_runs, 0)
        snapshot["queued"] = queued if view.scope is None else counts.get("pending", 0)
        if view.scope is None and self._counters.past:
            self._counters.past[-1].queued = queued
        snapshot["live"] = [self._live(run) for run in shown]
        if view.whole:
            began = time.perf_counter()
            workers = await self._runs.workers(_WORKERS)
            trip = time.perf_counter() - began
            snapshot["workers"] = [asdict(each) for each in workers]
            snapshot["pools"] = [
                {"name": name} | asdict(pool) for name, pool in sorted(stats.pools.items())
            ]
            if view.scope is None:
                look = Look(stats=stats, live=live, workers=workers, trip=trip)
                snapshot["problems"] = await self._problems.found(look)

    async def _list(
        self, name: str, statuses: Sequence[Status], limit: int
    ) -> Sequence[RunSummary]:
        # Quiet: a list each second must not count and log the same damage each second.
        return await self._runs.list(name, statuses, None, limit, quiet=True)

    def _live(self, run: RunSummary) -> dict[str, Any]:
        seen, waits = self._book.seen(run.key), self._book.why_it_waits(run)
        if seen is not None and (seen.revision, seen.created_us) == (run.revision, run.created_us):
            return seen.as_json() | {"waits": waits}
        return {
            "namespace": run.key.namespace,
            "key": run.key.key,
            "pipeline": run.pipeline,
            "revision": run.revision,
            "status": run.status.value,
            "attempt": 0,
            "worker": "",
            "created_us": run.created_us,
            "started_us": run.started_us,
            "completed_us": run.completed_us,
            "expires_us": run.expires_us,
            "error": run.error,
            "failure_reason": run.failure_reason or "",
            "pool": "",
            "waits": waits,
            "steps": [],
        }
