"""Figures of reasons, makers and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.identity import identity_of
from headstart_service.pipeline.step import step
from headstart_service.worker.batching import Batcher
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.offers import makers_of
from headstart_service.worker.reasons import failure_of, readable
from tests.support.ledger import pipeline_of
from tests.unit.worker.test_executor_figures import burn


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 1999 + "…"),
        ("a\ud800b", "a?b"),
    ],
    ids=["longest", "too long", "surrogate"],
)
def test_a_reason_has_2000_characters(text: str, told: str) -> None:
    assert readable(text) == told
    assert readable(StepFailed(text)) == told


def test_a_groups_reason_counts_the_others_and_is_no_longer() -> None:
    group = ExceptionGroup(
        "both", [ValueError("x"), ExceptionGroup("in", [StepFailed("y" * 3000), StepFailed("z")])]
    )
    failed = failure_of(group)
    assert failed is not None
    assert str(failed) == "y" * (2000 - len(" (and 2 more)")) + " (and 2 more)"
    assert failed.retry
    alone = failure_of(ExceptionGroup("one", [StepFailed("alone", retry=False)]))
    assert (str(alone), alone.retry if alone else None) == ("alone", False)
    assert failure_of(ExceptionGroup("none", [ValueError("x")])) is None


def test_a_maker_is_six_characters_of_what_a_step_is_made_by() -> None:
    class Model:
        identity = "model-1"

    @step()
    async def embedded(model: Any) -> int:
        return 1

    @step()
    async def after(embedded: int) -> int:
        return 1

    @step()
    async def plain() -> int:
        return 1

    pipeline = pipeline_of(embedded, after, plain)
    makers = makers_of(pipeline, {"model": Model(), "other": Model()})
    assert makers.keys() == {"embedded", "after"}
    assert {len(maker) for maker in makers.values()} == {6}
    assert makers["embedded"] != makers["after"]
    assert identity_of(Model()) == "model-1"


async def test_an_item_that_fails_alone_is_computed_once() -> None:
    batches: list[list[int]] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        if 7 in items:
            raise ValueError("seven")
        return items

    observed: list[int] = []
    async with Batcher(
        compute,
        max_batch=8,
        max_waiting=8,
        name="once",
        observe=lambda items, seconds: observed.append(items),
    ) as batcher:
        with pytest.raises(ValueError, match="seven"):
            await batcher.submit(7)
        assert batches == [[7]]
        told = await asyncio.gather(
            *(batcher.submit(each) for each in (1, 2, 7, 3)), return_exceptions=True
        )
        assert told[0:2] == [1, 2]
        assert isinstance(told[2], ValueError)
    assert [7] in batches[1:]
    assert sum(observed) == 3, "what failed is no batch that was computed"


async def test_an_items_cpu_is_its_share_by_weight_of_all_threads() -> None:
    def compute(items: Sequence[int]) -> Sequence[int]:
        burn(0.05)
        return items

    async def submit(batcher: Batcher[int, int], item: int) -> float:
        meter = CostMeter()
        METER.set(meter)
        await batcher.submit(item)
        return meter.cpu_seconds

    async with Batcher(
        compute, max_batch=2, max_waiting=8, name="w", weigh=float, threads=lambda: 3
    ) as batcher:
        hold = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        one, three = await asyncio.gather(submit(batcher, 1), submit(batcher, 3))
        await hold
    assert three == pytest.approx(3 * one)
    assert 0.15 <= one + three < 0.3
