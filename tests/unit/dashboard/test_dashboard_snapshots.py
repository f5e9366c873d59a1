"""The live page's snapshot: what of the ledger a viewer is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from headstart_service.dashboard.access import View
from headstart_service.dashboard.call_counters import Counters
from headstart_service.dashboard.recent_runs import RunBook
from headstart_service.dashboard.snapshots import Snapshots
from headstart_service.domain import Fate, Ledger, RunKey, RunSummary, Stats, Status, Work
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.pipeline.registry import Registry

ALL = View(None, whole=True)


def ledger(since_us: int, used: Work, expired: Work, **told: Any) -> Ledger:
    fates = dict.fromkeys(Fate, Work()) | {Fate.USED_READY: used, Fate.EXPIRED: expired}
    return Ledger(
        since_us=since_us, joined=1, reused=2, waited=0.5, fates=fates, pipelines={}, **told
    )


SHOP = ledger(2000, Work(3, compute=6.0), Work(1, compute=2.0), starts=5, open=1, hidden=6.0)
QUIZ = ledger(1000, Work(1, compute=1.0), Work(2, compute=3.0), starts=3, open=0, hidden=0.25)


class Store:
    """No runs, and these ledgers by namespace."""

    def __init__(self, ledgers: Mapping[str, Ledger]) -> None:
        self.ledgers = ledgers
        self.away = False
        self.asked: list[str] = []

    async def stats(self, namespace: str) -> Stats:
        if self.away:
            raise StoreUnavailable("away")
        self.asked.append(namespace)
        return Stats({}, 0, ledger=self.ledgers.get(namespace))

    async def list(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> Sequence[RunSummary]:
        return []

    async def workers(self, limit: int) -> Sequence[Any]:
        return []


@pytest.fixture
def store() -> Store:
    return Store({"shop": SHOP, "quiz": QUIZ, "": SHOP})


async def taken(store: Store, view: View) -> dict[str, Any]:
    book = RunBook(store, Registry([]))  # type: ignore[arg-type]
    return await Snapshots(store, book, Counters(), {}).take(view)  # type: ignore[arg-type]


async def test_who_sees_all_is_told_the_sums_of_all(store: Store) -> None:
    told = (await taken(store, ALL))["ledger"]
    assert store.asked == [""]
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


async def test_who_sees_some_namespaces_is_told_their_sums_and_no_others(store: Store) -> None:
    both = View(frozenset({"shop", "quiz", "quiet"}), whole=False)
    told = (await taken(store, both))["ledger"]
    assert sorted(store.asked) == ["quiet", "quiz", "shop"]
    assert (told["since_us"], told["starts"], told["open"]) == (1000, 8, 1)
    assert (told["hidden"], told["unread"]) == (6.25, 5 / 12)
    assert told["runs"]["used_ready"] == 4
    alone = (await taken(store, View(frozenset({"quiz"}), whole=False)))["ledger"]
    assert (alone["starts"], alone["hidden"]) == (3, 0.25)


async def test_where_nothing_was_started_there_is_no_ledger(store: Store) -> None:
    assert (await taken(store, View(frozenset({"quiet"}), whole=False)))["ledger"] is None


async def test_without_settled_work_no_share_is_told() -> None:
    begun = ledger(1, Work(), Work(), starts=1, open=1, hidden=0.0)
    assert (await taken(Store({"": begun}), ALL))["ledger"]["unread"] is None


async def test_before_the_first_read_no_share_is_told_while_runs_may_still_be_read() -> None:
    async def told(**counts: int) -> tuple[float | None, float | None]:
        found = ledger(1, Work(), Work(1, compute=2.0), hidden=0.0, **counts)
        shown = (await taken(Store({"": found}), ALL))["ledger"]
        return shown["hidden"], shown["unread"]

    assert await told(starts=2, open=1) == (None, None)
    assert await told(starts=1, open=0) == (0.0, 1.0)


async def test_while_the_store_is_away_the_page_keeps_what_it_had(store: Store) -> None:
    store.away = True
    told = await taken(store, ALL)
    assert told["store"] == "away"
    assert "ledger" not in told
