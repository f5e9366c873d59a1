"""What the page counts while nobody looks: bounded, and by namespace."""

from __future__ import annotations

import pytest

from headstart_service.api.observe import CallObserver
from headstart_service.domain import Announcement, EventKind, RunKey
from headstart_service.metric_labels import ResultsOutcome
from headstart_service.web.counters import KEPT, Counters, quantile


def announced(kind: str, namespace: str = "shop") -> Announcement:
    return Announcement(EventKind(kind), RunKey(namespace, "k"), "run-1")


def test_results_are_counted_by_outcome_and_their_times_kept() -> None:
    counters = Counters()
    observer: CallObserver = counters
    for seconds in (0.0001, 0.0001, 0.0001, 0.01):
        observer.ready(seconds, True)
    observer.ready(0.0001, False)
    for outcome in ResultsOutcome:
        observer.results(outcome, 0.5)
    told = counters.turn().told(None, whole=True)
    assert told["outcomes"] == [5, 1, 2, 1]
    assert told["p50"] == pytest.approx(100, rel=0.2)
    assert told["p99"] == pytest.approx(500_000, rel=0.2)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e-6, 31.9, 32.0, 1e9, float("inf")])
def test_any_time_is_counted(seconds: float) -> None:
    counters = Counters()
    counters.ready(seconds, True)
    counters.results("ready", seconds)
    assert counters.turn().outcomes[0] == 2


def test_a_quantile_of_nothing_is_none() -> None:
    assert quantile([0, 0], 0.5) is None


def test_starts_and_ends_are_told_of_ones_own_namespaces() -> None:
    counters = Counters()
    for kind, namespace in (
        ("started", "shop"),
        ("started", "other"),
        ("claimed", "shop"),
        ("ended", "other"),
        ("cancelled", "shop"),
        ("dropped", "shop"),
    ):
        counters.hear(announced(kind, namespace))
    second = counters.turn()
    assert (second.told(None, whole=True)["starts"], second.told(None, whole=True)["ends"]) == (
        2,
        2,
    )
    told = second.told(frozenset({"shop"}), whole=False)
    assert (told["starts"], told["ends"]) == (1, 1)
    assert not {"outcomes", "queued", "p50", "refused"} & set(told)


def test_many_namespaces_and_seconds_take_no_more_memory() -> None:
    counters = Counters()
    for number in range(1000):
        counters.hear(announced("started", f"n{number}"))
    assert len(counters.turn().starts_in) == 64
    for _ in range(2 * KEPT):
        counters.turn()
    assert len(counters.past) == KEPT


def test_calls_that_fail_are_counted() -> None:
    counters = Counters()
    for code in ("OK", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED"):
        counters.ended("GetStatus", code, 0.1)
    assert counters.turn().refused == 2
    assert counters.calls["GetStatus", "INTERNAL"] == 1
