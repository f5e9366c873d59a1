"""What makes a step's value: the identities of all providers that it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from headstart_service.engine.offers import makers_of
from headstart_service.engine.pipeline import Pipeline
from headstart_service.engine.step import step


class Inputs(BaseModel):
    text: str


@step()
async def plain(text: str) -> str:
    return text


@step()
async def embedded(text: str, embedder: Any) -> str:
    return text


@step()
async def told(plain: str, language_model: Any) -> str:
    return plain


@step()
async def joined(embedded: str, plain: str) -> str:
    return embedded + plain


@step()
async def last(joined: str, told: str) -> str:
    return joined + told


PIPELINE = Pipeline(
    name="makers",
    version="1",
    description="Steps with providers, and without",
    inputs=Inputs,
    steps=(plain, embedded, told, joined, last),
)


@dataclass
class Model:
    identity: str


def makers(embedder: str = "e1", language_model: str = "l1") -> dict[str, str]:
    return makers_of(
        PIPELINE, {"embedder": Model(embedder), "language_model": Model(language_model)}
    )


def changed(**models: str) -> set[str]:
    before, now = makers(), makers(**models)
    assert before.keys() == now.keys()
    return {name for name, maker in now.items() if maker != before[name]}


def test_another_identity_changes_the_steps_that_depend_on_it_and_no_others() -> None:
    assert changed() == set()
    assert changed(embedder="e2") == {"embedded", "joined", "last"}
    assert changed(language_model="l2") == {"told", "last"}


def test_a_step_that_depends_on_no_identity_has_no_maker() -> None:
    assert "plain" not in makers()
    assert makers("", "l1").keys() == {"told", "last"}
    assert makers_of(PIPELINE, {"embedder": object(), "language_model": object()}) == {}
