from __future__ import annotations

import pytest

from headstart_service.domain.retry_after import retry_after


def longest(backlog: int, ended: int, seconds: float) -> float:
    return retry_after(backlog, ended, seconds, lambda _, high: high)


@pytest.mark.parametrize(
    ("backlog", "ended", "seconds", "delay"),
    [(100, 200, 10, 5), (200, 200, 10, 10), (20, 10, 1, 2), (5, 0, 3, 15)],
)
def test_the_delay_is_the_backlog_at_the_rate_at_which_runs_end(
    backlog: int, ended: int, seconds: float, delay: float
) -> None:
    assert longest(backlog, ended, seconds) == pytest.approx(delay)


def test_the_delay_is_a_tenth_of_a_second_at_least_and_a_minute_at_most() -> None:
    assert longest(0, 100, 10) == 0.1
    assert longest(10**9, 100, 10) == 60


def test_refused_callers_are_spread_over_the_second_half_of_the_delay() -> None:
    drawn: list[tuple[float, float]] = []

    def spread(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    assert retry_after(20, 10, 1, spread) == pytest.approx(1)
    assert drawn == [(pytest.approx(1), pytest.approx(2))]
