"""When a client stops asking a service that does not help, for how long, and what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from headstart._errors import Incomplete, NotFound, ServiceError
from headstart._get_or_compute.circuit_breaker import Breaker
from headstart._get_or_compute.computation import Experience
from headstart._get_or_compute.computed import Computed
from headstart._messages import convert
from headstart._messages.results import Results
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import Clock
from tests.support.waiting import wait_until
from tests.unit.client.messages import values
from tests.unit.client.played_computation import PlayedService

SHORTEST, LONGEST = 0.75, 1.0
"""The share of a pause that a breaker rests: it differs, so that processes do not ask together."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        breaker.failed()


def rests(breaker: Breaker, clock: Clock, pause: float) -> None:
    """Assert that nobody asks during this pause, and one does after it."""
    clock.now += pause * SHORTEST - 0.001
    assert not breaker.admits()
    clock.now += pause * (LONGEST - SHORTEST) + 0.002
    assert breaker.admits()
    assert not breaker.admits(), "one asks, for all"


def test_two_failures_open_nothing_and_three_in_a_row_do(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    breaker.answered()
    fail(breaker, 2)
    assert breaker.admits()
    breaker.failed()
    rests(breaker, clock, 0.5)


def test_each_failure_after_a_pause_doubles_the_next_up_to_a_limit(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker)
    for pause in (0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
        rests(breaker, clock, pause)
        breaker.failed()


def test_one_who_asked_and_never_reported_keeps_others_away_for_the_next_pause_only(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker)
    rests(breaker, clock, 0.5)
    rests(breaker, clock, 1.0)


def test_failures_of_calls_that_were_under_way_do_not_make_the_pause_longer(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 8)
    rests(breaker, clock, 0.5)


def test_the_pause_starts_anew_after_a_recovery(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    for pause in (0.5, 1.0, 2.0):
        rests(breaker, clock, pause)
        breaker.failed()
    breaker.answered()
    assert breaker.admits()
    fail(breaker, 2)
    assert breaker.admits(), "it is closed, as at first"
    breaker.failed()
    rests(breaker, clock, 0.5)


class Late:
    """A service that answers after the budget and before the fallback ends."""

    def __init__(self, clock: Clock) -> None:
        self.service = PlayedService()
        self.service.experience = self.experience = Experience(breaker=Breaker(clock))
        failed = {"a": pb.StepReport(state=pb.STEP_STATE_FAILED)}
        self.answer: Results | Exception = convert.results_from(values(failed, other="x"))

    @property
    def asked(self) -> int:
        return len(self.service.calls)

    async def call(self) -> Computed:
        over, answered = asyncio.Event(), asyncio.Event()

        async def answer() -> Results:
            await over.wait()
            answered.set()
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        async def compute() -> str:
            over.set()
            if self.asked > asked:
                await answered.wait()
                await asyncio.sleep(0)
            return "live"

        asked = self.asked
        self.service.answer = answer
        return await self.service.compute(budget=0.001, a=compute)


async def test_late_answers_that_are_of_no_use_open_the_breaker(clock: Clock) -> None:
    service = Late(clock)
    for _ in range(5):
        assert (await service.call()).sources == {"a": "live"}
    assert service.asked == 3
    clock.now += 0.5
    for _ in range(3):
        await service.call()
    assert service.asked == 4, "after the pause one asks, and the next pause is longer"
    clock.now += 0.7
    await service.call()
    assert service.asked == 4
    clock.now += 0.3
    await service.call()
    assert service.asked == 5


async def test_a_call_that_is_late_and_fails_counts_once(clock: Clock) -> None:
    service = Late(clock)
    service.answer = ServiceError("INTERNAL")
    for _ in range(2):
        await service.call()
    assert not service.experience.breaker.open
    await service.call()
    assert service.experience.breaker.open


async def test_late_answers_that_are_sooner_than_computing_keep_the_breaker_closed(
    clock: Clock,
) -> None:
    service = Late(clock)
    service.answer = convert.results_from(values(a="theirs"))
    for _ in range(5):
        assert (await service.call()).sources == {"a": "waited"}
    assert service.asked == 5


async def test_a_service_that_ends_waits_at_once_is_not_asked_in_a_circle() -> None:
    service = PlayedService(a=9.0)

    async def a() -> str:
        for _ in range(100):
            await asyncio.sleep(0)
        return "live"

    assert (await service.compute(a=a)).sources == {"a": "live"}
    assert service.waits == [(), ("a",)]


async def test_a_step_that_an_ended_run_has_not_is_not_waited_for() -> None:
    service = PlayedService(status=pb.PRECOMPUTE_STATUS_CANCELLED, a=0.001)

    async def a() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "live"

    computed = await service.compute(a=a)
    assert computed.reasons == {"a": "the run is cancelled"}
    assert service.waits == [()]


async def test_what_a_step_needs_counts_to_how_long_computing_it_takes() -> None:
    service = PlayedService(a=4.0, b=5.0)
    service.held = {"a": asyncio.Event(), "b": asyncio.Event()}
    begun: list[str] = []
    for step, seconds in (("a", 10.0), ("b", 1.0)):
        service.experience.durations.note("text", step, seconds)

    async def a() -> str:
        begun.append("a")
        return "live"

    async def b(a: str) -> str:
        begun.append("b")
        return a

    computing = asyncio.create_task(service.compute(a=a, b=b))
    await wait_until(lambda: len(service.waits) == 3)
    service.ready = {"a": "theirs"}
    service.held["a"].set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert begun == []
    service.ready = {"a": "theirs", "b": "theirs too"}
    service.held["b"].set()
    computed = await computing
    assert computed.sources == {"a": "waited", "b": "waited"}
    assert begun == []


async def test_the_deadline_ends_a_call_that_would_still_wait_for_the_first_answer() -> None:
    service = PlayedService(a=1.0)

    async def forever() -> None:
        await asyncio.Event().wait()

    service.answer = service.hang
    async with asyncio.timeout(10):
        with pytest.raises(Incomplete):
            await service.compute(deadline=0.05, a=forever)


async def test_an_unknown_key_is_an_answer() -> None:
    service = PlayedService()

    async def unknown() -> Results:
        raise NotFound("nothing")

    async def a() -> str:
        return "live"

    service.answer = unknown
    for _ in range(5):
        computed = await service.compute(a=a)
        assert computed.reasons == {"a": "nothing was started under this key"}
    assert len(service.calls) == 5
