"""What the live page names as causes, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headstart_service.dashboard.access import View
from headstart_service.dashboard.call_counters import Counters
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.dashboard.snapshots import Snapshots
from headstart_service.domain import (
    Lack,
    RunKey,
    RunSummary,
    Stats,
    Status,
    WorkerState,
)
from headstart_service.domain.causes import Facts
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore

ALL = View(None, whole=True)
BUSY = WorkerState(
    name="w", host="h", version="1", pipelines=("probe",), slots=4, busy=4, started_us=1
)


def pending(name: str, namespace: str = "shop", lacks: Lack | None = None) -> RunSummary:
    return RunSummary(
        key=RunKey(namespace, name),
        pipeline="probe",
        revision=1,
        status=Status.PENDING,
        created_us=100,
        started_us=0,
        completed_us=0,
        expires_us=999,
        error="",
        lacks=lacks,
    )


def counts(waiting: int, running: int = 0, ended: int = 0) -> Stats:
    by_status = {
        Status.PENDING: waiting,
        Status.IN_PROGRESS: running,
        Status.COMPLETED: ended,
    }
    return Stats(by_status, waiting)


class Page:
    """A page's snapshots of a store with these runs."""

    def __init__(self, *runs: RunSummary, facts: Callable[[], Facts] = Facts) -> None:
        self.store = FakeRunStore(*runs)
        self.counters = Counters()
        book = RecentRuns(self.store, Registry([]))  # type: ignore[arg-type]
        self._snapshots = Snapshots(self.store, book, self.counters, {}, facts)  # type: ignore[arg-type]

    async def take(self, view: View = ALL) -> dict[str, Any]:
        return await self._snapshots.take(view)

    async def found(self) -> list[str]:
        return [each["found"] for each in (await self.take())["problems"]]


async def test_runs_without_a_worker_say_so() -> None:
    page = Page(pending("a", lacks=Lack.WORKER))
    page.store.stats_of[""] = counts(1)
    assert await page.found() == ["no worker is running: 1 run waits"]


async def test_workers_are_full_when_a_run_waits_in_two_looks() -> None:
    page = Page(pending("a"))
    page.store.stats_of[""] = counts(1, 4)
    page.store.registered = [BUSY]
    assert await page.found() == []
    assert await page.found() == ["all workers are full: 1 run waits while 4 run"]


async def test_a_flood_beside_others_is_found() -> None:
    page = Page(pending("a", "quiz", Lack.VERSION))
    page.store.registered = [BUSY]
    flood = {"quiz": 20, "robots": 180}
    page.store.stats_of |= {
        "": replace(counts(200, ended=50), pending=flood),
        "robots": counts(180),
    }
    found = "the namespace robots holds 90% of the queue: 180 of 200 pending runs"
    assert found in await page.found()
    page.store.stats_of["robots"] = counts(180, ended=70)
    assert found not in await page.found(), "nobody else has runs"


async def test_what_the_process_knows_is_added() -> None:
    page = Page(facts=lambda: Facts(certificate_left=-1, store_problem="starts are refused: full"))
    page.store.stats_of[""] = counts(0)
    assert await page.found() == ["starts are refused: full", "the certificate has ended"]


async def test_a_store_that_is_away_is_named_with_its_reason() -> None:
    page = Page()
    page.store.away = True
    told = await page.take()
    assert told["store"] == "away"
    assert [each["name"] for each in told["problems"]] == ["store"]


@pytest.mark.parametrize(
    "view", [View(frozenset({"shop"}), whole=False), View(frozenset({"shop"}), whole=True)]
)
async def test_who_does_not_see_all_is_told_no_causes(view: View) -> None:
    page = Page(pending("a", lacks=Lack.WORKER))
    page.store.stats_of |= {"": counts(1), "shop": counts(1)}
    assert "problems" not in await page.take(view)
