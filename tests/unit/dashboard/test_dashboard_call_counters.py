"""What the page counts while nobody looks: bounded, and by namespace."""

from __future__ import annotations

import time

import pytest

from headstart_service.api.call_observer import CallObserver
from headstart_service.base.metric_labels import ResultsOutcome
from headstart_service.dashboard.call_counters import KEPT, Counters, quantile
from headstart_service.domain import Announcement, EventKind, RunKey


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
    told = counters.turn().as_json(None, whole=True)
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


@pytest.mark.parametrize("announced", [(False, True), (True, False)])
def test_starts_and_ends_of_a_second_are_unknown_if_runs_were_not_announced_all_the_time(
    announced: tuple[bool, bool],
) -> None:
    counters = Counters()
    counters.announced = announced[0]
    counters.turn()
    counters.announced = announced[1]
    assert counters.turn().as_json(None, whole=True)["starts"] is None


def test_starts_and_ends_are_told_of_ones_own_namespaces() -> None:
    counters = Counters()
    counters.announced = True
    counters.turn()
    for kind, namespace in (
        ("started", "shop"),
        ("started", "other"),
        ("claimed", "shop"),
        ("ended", "other"),
        ("cancelled", "shop"),
        ("ended", "shop"),
        ("dropped", "shop"),
    ):
        counters.receive(announced(kind, namespace))
    second = counters.turn()
    assert (
        second.as_json(None, whole=True)["starts"],
        second.as_json(None, whole=True)["ends"],
    ) == (
        2,
        3,
    )
    told = second.as_json(frozenset({"shop"}), whole=False)
    assert (told["starts"], told["ends"]) == (1, 2)
    assert not {"outcomes", "queued", "p50", "refused"} & set(told)


def test_many_namespaces_and_seconds_take_no_more_memory() -> None:
    counters = Counters()
    for number in range(1000):
        counters.receive(announced("started", f"n{number}"))
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


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(1e-6, 1.09), (2e-6, 2.18), (3e-6, 3.084), (100e-6, 98.7), (1.0, 961_548), (31.9, 3.077e7)],
)
def test_a_quantile_is_within_a_tenth_of_the_time_that_was_measured(
    seconds: float, micros: float
) -> None:
    counters = Counters()
    counters.ready(seconds, True)
    told = counters.turn().as_json(None, whole=True)
    assert told["p50"] == told["p99"] == pytest.approx(micros, rel=0.01)
    counters.results("ready", seconds)
    alone = counters.turn().as_json(None, whole=True)
    if seconds > 1e-6:
        assert alone["p50"] == told["p50"]


def test_a_quantile_is_the_first_time_below_which_its_share_is() -> None:
    times = [0] * 100
    times[40], times[44], times[48] = 50, 49, 1
    found = [quantile(times, share) for share in (0.5, 0.51, 0.99, 0.995)]
    assert found == [pytest.approx(2 ** ((bucket + 0.5) / 4)) for bucket in (40, 44, 44, 48)]


@pytest.mark.parametrize("seconds", [0.0, 40.0])
def test_a_time_beyond_all_buckets_counts_in_the_first_or_not_at_all(seconds: float) -> None:
    counters = Counters()
    counters.ready(seconds, True)
    counters.results("ready", seconds)
    counters.results("waited", 0.5)
    second = counters.turn()
    assert (second.times[0], sum(second.times)) == (1, 1)


def test_a_second_has_when_it_ended_and_calls_that_were_cancelled_are_expected() -> None:
    counters = Counters()
    counters.ended("WatchResults", "CANCELLED", 0.1)
    before = time.time()
    second = counters.turn()
    assert before <= second.at <= time.time()
    assert second.as_json(None, whole=True) == {
        "at": second.at,
        "starts": None,
        "ends": None,
        "outcomes": [0, 0, 0, 0],
        "refused": 0,
        "p50": None,
        "p99": None,
        "queued": None,
    }
