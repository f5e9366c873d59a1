"""Digests are of the canonical JSON of a list: stored results are found by them for ever."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from headstart_service.domain import digest
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step

NAME, VERSION = "odd.one", '1"\\ü'


class Inputs(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: Any = 1
    extra_share: float = 1e16
    items: list[Any] = []


@step(version='"v,2')
async def second(value: Any, extra_share: float, first: str) -> str:
    return ""


@step(when=lambda inputs: inputs.value != 0)
async def first(extra_share: float) -> str:
    return ""


@step(each="items")
async def third(items: Any, first: str | None = None) -> str:
    return ""


ODD = Pipeline(NAME, VERSION, "", Inputs, (second, first, third))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"value": 0},
        {"value": True, "items": [{"b": 1, "a": "ü\u2028"}, None, 2.5]},
        {"value": 10**30, 'ärger"\n': False},
        {"value": 'é\n"', "extra_share": 3},
    ],
)
def test_digests_are_of_canonical_json(more: dict[str, Any]):
    plan = ODD.plan(more, "inputs")

    plain = Inputs(**more).model_dump(mode="json")
    wanted: dict[str, str] = {}
    if plain["value"] != 0:
        own = {"extra_share": plain["extra_share"]}
        wanted["first"] = digest([NAME, VERSION, "first", "", own, {}])
        own = {"value": plain["value"], **own}
        needed = {"first": wanted["first"]}
        wanted["second"] = digest([NAME, VERSION, "second", '"v,2', own, needed])
    own = {"items": plain["items"]}
    needed = {name: each for name, each in wanted.items() if name == "first"}
    wanted["third"] = digest([NAME, VERSION, "third", "", own, needed, "items"])
    assert plan.steps == wanted
    assert list(plan.steps) == [name for name in ODD.order if name in wanted]
    assert plan.digest == digest([NAME, VERSION, plain, wanted])
    assert ODD.step_digests(Inputs(**more)) == wanted
