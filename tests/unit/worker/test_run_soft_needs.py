"""Needs that may fail: a parameter with a default, or of a type that may be None."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Status
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import Step, step
from headstart_service.testing import run_pipeline
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Dictionary, Ledger, claim_for, claim_of


class Inputs(BaseModel):
    fails: bool = False
    has: bool = True


def pipeline(*steps: Step) -> Pipeline:
    return Pipeline("soft", "1", "", Inputs, steps)


@step()
async def rates(fails: bool) -> list[int]:  # noqa: FBT001
    if fails:
        raise StepFailed("carrier away", retry=False)
    return [1]


@step()
async def cheapest(rates: list[int] = [99]) -> int:  # noqa: B006
    return min(rates)


@step()
async def note(rates: list[int] | None) -> str:
    return "no rates" if rates is None else "rates"


@step()
async def quoted(cheapest: int) -> str:
    return f"{cheapest} €"


WHOLE = pipeline(rates, cheapest, note, quoted)


async def ran(made: Pipeline, **inputs: Any) -> Any:
    return await run_pipeline(made, inputs, providers={}, timeout=10)


async def test_a_step_runs_with_its_default_when_a_soft_need_failed() -> None:
    found = await ran(WHOLE, fails=True)
    assert found.values == {"cheapest": 99, "note": "no rates", "quoted": "99 €"}
    assert found.steps["cheapest"].missing_needs == ("rates",)
    assert found.steps["quoted"].missing_needs == ()
    assert (await ran(WHOLE)).values == {
        "rates": [1],
        "cheapest": 1,
        "note": "rates",
        "quoted": "1 €",
    }


@pytest.mark.parametrize("end", ["timed out", "raised", "skipped", "not in the run"])
async def test_however_a_soft_need_ends_the_step_runs_after_it(end: str) -> None:
    order = []

    @step(timeout=0.05)
    async def early() -> int:
        await asyncio.sleep(0.02)
        order.append("early")
        if end == "skipped":
            raise StepFailed("no")
        return 1

    @step(timeout=0.05, when=lambda inputs: end != "not in the run")
    async def need(early: int) -> int:
        order.append("need")
        if end == "timed out":
            await asyncio.sleep(9)
        raise ValueError

    @step()
    async def taker(need: int | None) -> bool:
        order.append("taker")
        return need is None

    found = await ran(pipeline(early, need, taker))
    assert found.values["taker"] is True
    assert found.steps["taker"].missing_needs == ("need",)
    if end != "not in the run":
        assert order[-1] == "taker"
    assert ("need" in found.steps) == (end != "not in the run")


async def test_a_need_that_may_itself_return_none_is_hard_without_a_default() -> None:
    @step()
    async def maybe(fails: bool) -> str | None:  # noqa: FBT001
        if fails:
            raise StepFailed("no")
        return None

    @step()
    async def taker(maybe: str | None) -> bool:
        return maybe is None

    @step()
    async def soft(maybe: str | None = "default") -> str | None:
        return maybe

    made = pipeline(maybe, taker, soft)
    assert (await ran(made)).values == {"maybe": None, "taker": True, "soft": None}
    failed = await ran(made, fails=True)
    assert (failed.values, failed.steps["taker"].state) == ({"soft": "default"}, "skipped")


async def test_nothing_begins_that_needs_a_failed_required_step_softly() -> None:
    begun = []

    @step(required=True)
    async def must() -> int:
        raise StepFailed("no")

    @step()
    async def taker(must: int | None) -> bool:
        begun.append("taker")
        return must is None

    found = await ran(pipeline(must, taker))
    assert (found.status, found.steps["taker"].state, begun) == ("failed", "skipped", [])


async def run_of(made: Pipeline, key: str, reuse: Reuse, **inputs: Any) -> Ledger:
    ledger = Ledger()
    async with asyncio.timeout(10):
        assert await run(claim_for(made, key, **inputs), made, {}, ledger, reuse=reuse) is (
            Status.COMPLETED
        )
    return ledger


async def test_what_was_made_without_a_need_is_not_reused_as_if_made_with_it() -> None:
    calls = []

    @step(memo=True)
    async def sum_up(rates: list[int] | None) -> str:
        calls.append(rates)
        return f"{rates}"

    away = {"now": True}

    @step()
    async def rates() -> list[int]:
        if away["now"]:
            raise StepFailed("away", retry=False)
        return [1]

    @step(memo=True)
    async def page(sum_up: str) -> str:
        return f"<{sum_up}>"

    made, reuse = pipeline(rates, sum_up, page), Reuse(Dictionary())
    without = await run_of(made, "k1", reuse)
    again = await run_of(made, "k2", reuse)
    assert [each.value("page") for each in (without, again)] == ["<None>", "<None>"]
    assert calls == [None], "another run without the need may share what was made without it"
    away["now"] = False
    found = await run_of(made, "k3", reuse)
    assert (found.value("page"), calls) == ("<[1]>", [None, [1]])
    degraded = {r.name: r.degraded for w in without.writes for r in w.ended}
    assert degraded == {"rates": False, "sum_up": True, "page": True}
    assert not any(r.degraded for w in found.writes for r in w.ended)


async def test_a_value_of_an_earlier_holder_that_lacked_a_need_still_counts_as_degraded() -> None:
    first = Ledger()
    await run(claim_of(WHOLE, {"fails": True}), WHOLE, {}, first)
    ended = {name: first.records[name] for name in ("rates", "cheapest")}
    second = Ledger()
    await run(claim_of(WHOLE, {"fails": True}, ended), WHOLE, {}, second)
    assert {r.name: r.degraded for w in second.writes for r in w.ended} == {
        "note": True,
        "quoted": True,
    }
    message = pb.GetResultsResponse.FromString(second.records["note"].fragment)
    assert list(message.steps["note"].missing_needs) == ["rates"]
