"""The clock of a step's try, which stands still while its calls wait for their turn."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from headstart_service.worker import step_deadline
from headstart_service.worker.step_deadline import StepClock, end_in, seconds_left, step_clock
from tests.support.virtual_time import loop_time, run_virtually


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_deadline, "time", SimpleNamespace(monotonic=loop_time))


def test_outside_of_a_step_no_time_ends() -> None:
    assert seconds_left() is None
    assert step_clock() is None


def test_time_stands_still_until_the_last_call_goes_on() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5) as limit:
                end_in(5, limit)
                clock = step_clock()
                assert clock is not None
                await asyncio.sleep(1)
                clock.stop()
                clock.stop()
                await asyncio.sleep(100)
                clock.go()
                await asyncio.sleep(100)
                assert seconds_left() == pytest.approx(4)
                clock.go()
                await asyncio.sleep(1)
                assert seconds_left() == pytest.approx(3)
                await asyncio.sleep(100)
        return loop_time()

    assert run_virtually(main()) == pytest.approx(205)


def test_a_clock_that_has_run_out_stays_so() -> None:
    async def main() -> float:
        limit = asyncio.timeout(1)
        clock = StepClock(1, limit)
        with pytest.raises(TimeoutError):
            async with limit:
                await asyncio.sleep(5)
        clock.stop()
        clock.go()
        return clock.left

    assert run_virtually(main()) == 0
