"""The live page's snapshot: what of the ledger a viewer is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from headstart_service.dashboard.access import View
from headstart_service.dashboard.call_counters import Counters
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.dashboard.snapshots import Snapshots
from headstart_service.domain import Fate, Ledger, Stats, Work
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore

ALL = View(None, whole=True)


def ledger(since_us: int, used: Work, expired: Work, **told: Any) -> Ledger:
    fates = dict.fromkeys(Fate, Work()) | {Fate.USED_READY: used, Fate.EXPIRED: expired}
    return Ledger(
        since_us=since_us, joined=1, reused=2, waited=0.5, fates=fates, pipelines={}, **told
    )


SHOP = ledger(2000, Work(3, compute=6.0), Work(1, compute=2.0), starts=5, open=1, hidden=6.0)
QUIZ = ledger(1000, Work(1, compute=1.0), Work(2, compute=3.0), starts=3, open=0, hidden=0.25)


def store_of(ledgers: Mapping[str, Ledger]) -> FakeRunStore:
    """No runs, and these ledgers by namespace."""
    made = FakeRunStore()
    made.stats_of = {name: Stats({}, 0, ledger=ledger) for name, ledger in ledgers.items()}
    return made


@pytest.fixture
def store() -> FakeRunStore:
    return store_of({"shop": SHOP, "quiz": QUIZ, "": SHOP})


async def taken(store: FakeRunStore, view: View) -> dict[str, Any]:
    book = RecentRuns(store, Registry([]))  # type: ignore[arg-type]
    return await Snapshots(store, book, Counters(), {}).take(view)  # type: ignore[arg-type]


async def test_who_sees_all_is_told_the_sums_of_all(store: FakeRunStore) -> None:
    told = (await taken(store, ALL))["ledger"]
    assert store.asked("stats") == [""]
    assert told == {
        "since_us": 2000,
        "starts": 5,
        "joined": 1,
        "reused": 2,
        "open": 1,
        "hidden": 6.0,
        "unread": 0.25,
        "runs": dict.fromkeys(Fate, 0) | {"used_ready": 3, "expired": 1},
    }
    assert told["starts"] == sum(told["runs"].values()) + told["open"]


async def test_who_sees_some_namespaces_is_told_their_sums_and_no_others(
    store: FakeRunStore,
) -> None:
    both = View(frozenset({"shop", "quiz", "quiet"}), whole=False)
    told = (await taken(store, both))["ledger"]
    assert sorted(store.asked("stats")) == ["quiet", "quiz", "shop"]
    assert (told["since_us"], told["starts"], told["open"]) == (1000, 8, 1)
    assert (told["hidden"], told["unread"]) == (6.25, 5 / 12)
    assert told["runs"]["used_ready"] == 4
    alone = (await taken(store, View(frozenset({"quiz"}), whole=False)))["ledger"]
    assert (alone["starts"], alone["hidden"]) == (3, 0.25)


async def test_where_nothing_was_started_there_is_no_ledger(store: FakeRunStore) -> None:
    assert (await taken(store, View(frozenset({"quiet"}), whole=False)))["ledger"] is None


async def test_without_settled_work_no_share_is_reported() -> None:
    begun = ledger(1, Work(), Work(), starts=1, open=1, hidden=0.0)
    assert (await taken(store_of({"": begun}), ALL))["ledger"]["unread"] is None


async def test_before_the_first_read_no_share_is_told_while_runs_may_still_be_read() -> None:
    async def told(**counts: int) -> tuple[float | None, float | None]:
        found = ledger(1, Work(), Work(1, compute=2.0), hidden=0.0, **counts)
        shown = (await taken(store_of({"": found}), ALL))["ledger"]
        return shown["hidden"], shown["unread"]

    assert await told(starts=2, open=1) == (None, None)
    assert await told(starts=1, open=0) == (0.0, 1.0)


async def test_while_the_store_is_away_the_page_keeps_what_it_had(store: FakeRunStore) -> None:
    store.away = True
    told = await taken(store, ALL)
    assert told["store"] == "away"
    assert "ledger" not in told
