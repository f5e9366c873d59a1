"""When a client stops asking a service that does not help, for how long, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from headstart import _convert
from headstart._breaker import Breaker
from headstart._computed import Computed
from headstart._errors import Incomplete, NotFound, ServiceError
from headstart._graph import Fallbacks
from headstart._live import Computation, Experience
from headstart._results import Results
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import Clock
from tests.support.waiting import wait_until
from tests.unit.client.test_client_get_or_compute import expected, values

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
        self.experience = Experience(breaker=Breaker(clock))
        self.asked = 0
        failed = {"a": pb.StepReport(state=pb.STEP_STATE_FAILED)}
        self.answer: Results | Exception = _convert.results_from(values(failed, other="x"))

    async def call(self) -> Computed:
        over, answered = asyncio.Event(), asyncio.Event()

        async def get(**_: Any) -> Results:
            self.asked += 1
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
        computation = Computation(
            get,
            Fallbacks({"a": compute}),
            self.experience,
            key="k",
            deadline=30.0,
            budget=0.001,
            min_revision=0,
            hand_back=None,
            spawn=lambda _: None,
        )
        return await computation.run(("a",))


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
    service.answer = _convert.results_from(values(a="theirs"))
    for _ in range(5):
        assert (await service.call()).sources == {"a": "waited"}
    assert service.asked == 5


class Asked:
    """A service whose answers a test chooses; counts what it is asked."""

    def __init__(self, *, status: Any = pb.PRECOMPUTE_STATUS_IN_PROGRESS, **p90: float) -> None:
        self.waits: list[tuple[str, ...]] = []
        self.experience = Experience()
        self.ready: dict[str, Any] = {}
        self.held: dict[str, asyncio.Event] = {}
        self._status, self._p90 = status, p90

    async def get(self, *, wait: float, required_steps: Sequence[str], timeout: float) -> Results:  # noqa: ASYNC109
        self.waits.append(tuple(required_steps))
        await asyncio.sleep(0)
        for step in required_steps:
            if step in self.held:
                await self.held[step].wait()
        pending = {step: expected(p90, p90) for step, p90 in self._p90.items()}
        message = values(
            {s: told for s, told in pending.items() if s not in self.ready}, **self.ready
        )
        message.status = self._status
        return _convert.results_from(message)

    async def compute(self, deadline: float = 30.0, **fallback: Any) -> Computed:
        computation = Computation(
            self.get,
            Fallbacks(fallback),
            self.experience,
            key="k",
            deadline=deadline,
            budget=20.0,
            min_revision=0,
            hand_back=None,
            spawn=lambda _: None,
        )
        return await computation.run(tuple(fallback))


async def test_a_service_that_ends_waits_at_once_is_not_asked_in_a_circle() -> None:
    service = Asked(a=9.0)

    async def a() -> str:
        for _ in range(100):
            await asyncio.sleep(0)
        return "live"

    assert (await service.compute(a=a)).sources == {"a": "live"}
    assert service.waits == [(), ("a",)]


async def test_a_step_that_an_ended_run_has_not_is_not_waited_for() -> None:
    service = Asked(status=pb.PRECOMPUTE_STATUS_CANCELLED, a=0.001)

    async def a() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "live"

    computed = await service.compute(a=a)
    assert computed.reasons == {"a": "the run is cancelled"}
    assert service.waits == [()]


async def test_what_a_step_needs_counts_to_how_long_computing_it_takes() -> None:
    service = Asked(a=4.0, b=5.0)
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
    service = Asked(a=1.0)

    async def hang(**_: Any) -> Results:
        await asyncio.Event().wait()
        raise AssertionError

    async def forever() -> None:
        await asyncio.Event().wait()

    service.get = hang  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        with pytest.raises(Incomplete):
            await service.compute(deadline=0.05, a=forever)


async def test_an_unknown_key_is_an_answer() -> None:
    service = Asked()
    asked = 0

    async def unknown(**_: Any) -> Results:
        nonlocal asked
        asked += 1
        raise NotFound("nothing")

    async def a() -> str:
        return "live"

    service.get = unknown  # type: ignore[method-assign]
    for _ in range(5):
        computed = await service.compute(a=a)
        assert computed.reasons == {"a": "nothing was started under this key"}
    assert asked == 5
