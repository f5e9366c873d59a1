from __future__ import annotations

import pytest

from headstart_service.domain.retry_after import Pace
from tests.support.virtual_time import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock, lambda _, high: high)


def run(pace: Pace, clock: Clock, seconds: int, a_second: int) -> None:
    """So many runs end each second, and as many start."""
    for _ in range(seconds * a_second):
        clock.now += 1 / a_second
        pace.note(ended=False)
        pace.note(ended=True)


@pytest.mark.parametrize("seconds", [3, 7, 12, 31])
def test_the_delay_is_the_backlog_at_the_rate_at_which_runs_end(
    pace: Pace, clock: Clock, seconds: int
) -> None:
    run(pace, clock, seconds, 20)
    assert pace.delay(100) == pytest.approx(5, rel=0.02)
    assert pace.delay(200) == pytest.approx(10, rel=0.02)


def test_a_new_rate_is_known_after_two_windows(pace: Pace, clock: Clock) -> None:
    run(pace, clock, 60, 1)
    run(pace, clock, 10, 50)
    assert pace.delay(100) == pytest.approx(2, rel=0.2)
    run(pace, clock, 12, 1)
    assert pace.delay(10) == pytest.approx(10, rel=0.2)


def test_a_delay_is_between_a_tenth_of_a_second_and_a_minute(pace: Pace, clock: Clock) -> None:
    run(pace, clock, 10, 100)
    assert pace.delay(0) == 0.1
    assert pace.delay(10**9) == 60


def test_while_nothing_ends_the_delay_grows(pace: Pace, clock: Clock) -> None:
    delays = []
    for _ in range(4):
        clock.now += 1
        pace.note(ended=False)
        delays.append(pace.delay(5))
    assert delays == [5, 10, 15, 20]


def test_silence_is_no_measure_of_what_could_be_done(pace: Pace, clock: Clock) -> None:
    clock.now += 3600
    pace.note(ended=False)
    for _ in range(20):
        clock.now += 0.1
        pace.note(ended=True)
    assert pace.delay(20) == pytest.approx(2)


def test_what_ended_before_the_last_two_windows_is_no_measure_any_more(
    pace: Pace, clock: Clock
) -> None:
    run(pace, clock, 12, 20)
    clock.now += 9.9
    assert pace.delay(10) == 60


def test_callers_are_spread_over_the_second_half(clock: Clock) -> None:
    asked = []

    def spread(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    pace = Pace(clock, spread)
    run(pace, clock, 4, 10)
    assert pace.delay(20) == pytest.approx(1)
    assert asked == [(pytest.approx(1), pytest.approx(2))]
