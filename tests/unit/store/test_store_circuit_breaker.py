"""Who may ask a server that does not answer."""

from __future__ import annotations

from headstart_service.store.circuit_breaker import Reach


def away(now: float = 100.0) -> Reach:
    reach = Reach(patience=0.25)
    for _ in range(3):
        assert reach.admits(now)
        reach.failed(now)
    return reach


def test_two_failures_are_no_outage() -> None:
    reach = Reach(patience=0.25)
    reach.failed(100)
    reach.failed(100)
    assert reach.away
    assert [reach.admits(100) for _ in range(3)] == [True, True, True]


def test_failures_count_in_a_row_only() -> None:
    reach = Reach(patience=0.25)
    for _ in range(5):
        reach.failed(100)
        reach.failed(100)
        reach.answered()
    assert not reach.away
    assert reach.admits(100)


def test_after_three_failures_nobody_asks_but_one_after_a_pause() -> None:
    reach = away()
    assert not reach.admits(100.19)
    assert [reach.admits(100.21) for _ in range(3)] == [True, False, False]


def test_the_next_one_asks_a_pause_after_the_last_was_refused() -> None:
    reach = away()
    assert reach.admits(100.3)
    reach.failed(100.5)
    assert not reach.admits(100.6)
    assert reach.admits(100.71)


def test_one_who_never_told_what_came_of_it_keeps_nobody_away_for_long() -> None:
    reach = away()
    assert reach.admits(101)
    assert not reach.admits(101.4)
    assert reach.admits(101.5)


def test_an_answer_admits_all() -> None:
    reach = away()
    assert reach.admits(101)
    reach.answered()
    assert [reach.admits(101) for _ in range(3)] == [True, True, True]
