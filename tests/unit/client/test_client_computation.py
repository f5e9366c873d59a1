"""When one call of get_or_compute asks, waits and computes: by a virtual clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headstart import Incomplete
from tests.support.virtual_time import loop_time, run_virtually
from tests.unit.client.played_computation import PlayedService
from tests.unit.client.virtual_channel import DAY, use_loop_time


@pytest.fixture(autouse=True)
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loop_time(monkeypatch)


def hanging() -> PlayedService:
    service = PlayedService()
    service.answer = service.hang
    return service


def test_an_answer_may_take_a_second_behind_its_wait_and_no_wait_is_too_long() -> None:
    async def forever() -> None:
        await asyncio.sleep(DAY)

    async def asked(deadline: float) -> list[Any]:
        service = PlayedService(a=1.0)
        service.patient = True
        with pytest.raises(Incomplete):
            await service.compute(deadline=deadline, a=forever)
        return service.calls

    assert run_virtually(asked(0.5)) == [(0.0, (), 1.0), (0.5, ("a",), 1.0)]
    assert run_virtually(asked(1000.0)) == [
        (0.0, (), 1000.0),
        (600.0, ("a",), 1.0),
        (400.0, ("a",), 1.0),
    ]


@pytest.mark.parametrize(("budget", "deadline", "begins"), [(0.025, 10.0, 0.025), (5.0, 2.0, 2.0)])
def test_computing_begins_after_the_budget_and_no_later_than_the_deadline(
    budget: float, deadline: float, begins: float
) -> None:
    begun: list[float] = []

    async def compute() -> str:
        begun.append(loop_time())
        return "live"

    async def asked() -> Any:
        service = hanging()
        began = loop_time()
        try:
            computed = await service.compute(deadline=deadline, budget=budget, a=compute)
        except Incomplete as error:
            computed = error.computed
        return computed, loop_time() - began, service

    computed, took, service = run_virtually(asked())
    assert took == pytest.approx(begins)
    assert begun == [pytest.approx(begins)]
    if begins < deadline:
        assert computed.reasons == {"a": "the service did not answer within 25 ms"}
        assert computed.seconds == {"a": pytest.approx(begins)}
    breaker = service.experience.breaker
    breaker.failed()
    assert not breaker.open, "the call counted as one failure of three"
    breaker.failed()
    assert breaker.open


def test_a_deadline_that_the_first_answer_has_used_up_is_over() -> None:
    async def forever() -> None:
        await asyncio.sleep(DAY)

    async def asked() -> float:
        with pytest.raises(Incomplete, match="no value within 2 s of k: a"):
            await hanging().compute(deadline=2.0, budget=5.0, a=forever)
        return loop_time()

    assert run_virtually(asked()) == 2.0


def test_the_first_error_of_a_fallback_ends_the_call_and_what_still_runs() -> None:
    stopped: list[float] = []

    async def fails() -> str:
        await asyncio.sleep(1.0)
        raise KeyError("a")

    async def forever() -> None:
        try:
            await asyncio.sleep(DAY)
        finally:
            stopped.append(loop_time())

    async def asked() -> None:
        with pytest.raises(KeyError) as failed:
            await hanging().compute(deadline=1000.0, budget=0.25, a=fails, b=forever)
        assert failed.value.__notes__ == ["in the fallback of step a of k"]
        assert loop_time() == 1.25

    run_virtually(asked())
    assert stopped == [1.25]


def test_values_of_the_service_and_values_made_of_others_are_not_mixed() -> None:
    """A language model gives another bridge each time: its embeddings must be those of that one."""

    async def test() -> None:
        service = PlayedService(bridge=9.0, embeddings=9.0)
        service.held = {"bridge": asyncio.Event(), "embeddings": asyncio.Event()}

        async def bridge() -> str:
            return "ours"

        async def embeddings(bridge: str) -> str:
            await asyncio.sleep(3.0)
            return f"of {bridge}"

        playing = service.compute(budget=1.0, bridge=bridge, embeddings=embeddings)
        computing = asyncio.create_task(playing)
        await asyncio.sleep(1.0)
        service.ready = {"bridge": "theirs", "embeddings": "of theirs"}
        service.held["embeddings"].set()
        assert (await computing).values == {"bridge": "ours", "embeddings": "of ours"}

    run_virtually(test())


def test_a_step_comes_with_what_it_was_made_of() -> None:
    async def test() -> None:
        service = PlayedService(bridge=9.0, embeddings=9.0)
        service.held = {"bridge": asyncio.Event(), "embeddings": asyncio.Event()}

        async def bridge() -> str:
            await asyncio.sleep(5.0)
            return "ours"

        async def embeddings(bridge: str) -> str:
            return f"of {bridge}"

        playing = service.compute(budget=1.0, bridge=bridge, embeddings=embeddings)
        computing = asyncio.create_task(playing)
        await asyncio.sleep(1.0)
        service.ready = {"bridge": "theirs", "embeddings": "of theirs"}
        service.held["embeddings"].set()
        computed = await computing
        assert computed.values == {"bridge": "theirs", "embeddings": "of theirs"}
        assert set(computed.sources.values()) == {"waited"}

    run_virtually(test())
