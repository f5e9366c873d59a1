"""Steps that run once for each item of a list."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import FailureReason, KeptItems, StepRecord, StepState
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.sdk import Item
from headstart_service.testing import run_pipeline
from headstart_service.values.limits import Limits
from headstart_service.worker.run import run
from tests.support.ledger import Ledger, claim_of, tasks_left
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quiet") if False else []


class Names(BaseModel):
    names: list[str] = []
    other: Any = None


def pipeline(*steps: Any) -> Pipeline:
    return Pipeline("items", "1", "", Names, steps)


async def values_of(*steps: Any, **inputs: Any) -> dict[str, Any]:
    run = await run_pipeline(pipeline(*steps), inputs, providers={}, timeout=10)
    return dict(run.values)


@step(each="names")
async def lengths(names: str) -> int:
    if not names:
        raise StepFailed("no name", retry=False)
    return len(names)


@step()
async def total(lengths: list[Item[int]]) -> int:
    return sum(each.value or 0 for each in lengths if not each.failed)


async def test_each_item_has_a_value_or_a_reason_in_the_order_of_the_list() -> None:
    found = await values_of(lengths, total, names=["a", "", "ccc"])
    failed: Item[int] = Item(error="no name", reason=FailureReason.STEP_FAILED)
    assert found == {"lengths": [Item(1), failed, Item(3)], "total": 4}


async def test_an_empty_list_gives_an_empty_list() -> None:
    assert await values_of(lengths, total, names=[]) == {"lengths": [], "total": 0}
