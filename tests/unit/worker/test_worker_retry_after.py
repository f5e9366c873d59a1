from __future__ import annotations

import pytest

from headstart_service.domain.retry_after import DrainRate
from tests.support.virtual_time import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def drain_rate(clock: Clock) -> DrainRate:
    return DrainRate(clock, lambda _, high: high)


def run(drain_rate: DrainRate, clock: Clock, seconds: int, a_second: int) -> None:
    """So many runs end each second, and as many start."""
    for _ in range(seconds * a_second):
        clock.now += 1 / a_second
        drain_rate.count(ended=False)
        drain_rate.count(ended=True)


@pytest.mark.parametrize("seconds", [3, 7, 12, 31])
def test_the_delay_is_the_backlog_at_the_rate_at_which_runs_end(
    drain_rate: DrainRate, clock: Clock, seconds: int
) -> None:
    run(drain_rate, clock, seconds, 20)
    assert drain_rate.retry_after(100) == pytest.approx(5, rel=0.02)
    assert drain_rate.retry_after(200) == pytest.approx(10, rel=0.02)


def test_a_new_rate_is_known_after_two_windows(drain_rate: DrainRate, clock: Clock) -> None:
    run(drain_rate, clock, 60, 1)
    run(drain_rate, clock, 10, 50)
    assert drain_rate.retry_after(100) == pytest.approx(2, rel=0.2)
    run(drain_rate, clock, 12, 1)
    assert drain_rate.retry_after(10) == pytest.approx(10, rel=0.2)


def test_a_delay_is_between_a_tenth_of_a_second_and_a_minute(
    drain_rate: DrainRate, clock: Clock
) -> None:
    run(drain_rate, clock, 10, 100)
    assert drain_rate.retry_after(0) == 0.1
    assert drain_rate.retry_after(10**9) == 60


def test_while_nothing_ends_the_delay_grows(drain_rate: DrainRate, clock: Clock) -> None:
    delays = []
    for _ in range(4):
        clock.now += 1
        drain_rate.count(ended=False)
        delays.append(drain_rate.retry_after(5))
    assert delays == [5, 10, 15, 20]


def test_silence_is_no_measure_of_what_could_be_done(drain_rate: DrainRate, clock: Clock) -> None:
    clock.now += 3600
    drain_rate.count(ended=False)
    for _ in range(20):
        clock.now += 0.1
        drain_rate.count(ended=True)
    assert drain_rate.retry_after(20) == pytest.approx(2)


def test_what_ended_before_the_last_two_windows_is_no_measure_any_more(
    drain_rate: DrainRate, clock: Clock
) -> None:
    run(drain_rate, clock, 12, 20)
    clock.now += 9.9
    assert drain_rate.retry_after(10) == 60


def test_callers_are_spread_over_the_second_half(clock: Clock) -> None:
    asked = []

    def spread(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    drain_rate = DrainRate(clock, spread)
    run(drain_rate, clock, 4, 10)
    assert drain_rate.retry_after(20) == pytest.approx(1)
    assert asked == [(pytest.approx(1), pytest.approx(2))]
