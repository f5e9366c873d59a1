"""What makes a step's value: the identities of all providers that it depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import Step, step
from headstart_service.worker.offers import makers_of, offers_of


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


class More(Inputs):
    other: str = ""


@step(version="2")
async def newer(embedded: str, plain: str) -> str:
    return embedded + plain


@step()
async def fewer(embedded: str) -> str:
    return embedded


def test_a_definition_is_that_of_the_version_the_inputs_and_the_steps() -> None:
    def with_joined(other: Step) -> Pipeline:
        steps = (plain, embedded, told, replace(other, name="joined"), last)
        return replace(PIPELINE, steps=steps)

    others = [
        replace(PIPELINE, name="others"),
        replace(PIPELINE, version="2"),
        replace(PIPELINE, inputs=More),
        replace(PIPELINE, steps=PIPELINE.steps[:-1]),
        with_joined(newer),
        with_joined(fewer),
    ]
    definitions = {PIPELINE.definition, *(other.definition for other in others)}
    assert len(definitions) == 1 + len(others)
    same = replace(with_joined(joined), description="Said otherwise")
    assert same.definition == PIPELINE.definition


def test_a_memo_is_of_one_maker() -> None:
    inputs = Inputs(text="sea")
    digests = {PIPELINE.memo_digest(embedded, inputs, "own", maker, {}) for maker in ("", "a", "b")}
    assert len(digests) == 3


@step(pool="gpu")
async def drawn(joined: str, painter: Any) -> str:
    return joined


@step(pool="gpu")
async def enlarged(drawn: str) -> str:
    return drawn


@step()
async def shown(enlarged: str, told: str) -> str:
    return enlarged + told


POOLS = Pipeline("pools", "1", "", Inputs, (plain, embedded, told, joined, drawn, enlarged, shown))
PROVIDERS = {"embedder": Model("e1"), "language_model": Model("l1"), "painter": Model("p1")}


def offered(*pools: str) -> dict[str, dict[str, str]]:
    """The makers of each offer of a worker of these pools, which has the providers it needs."""
    registry = Registry([POOLS]).of_pools(pools)
    providers = {name: PROVIDERS[name] for name in registry.providers()}
    return {offer.definition: dict(offer.makers) for offer in offers_of(registry, providers)}


def test_a_worker_needs_the_providers_of_its_pools_and_offers_their_steps_alone() -> None:
    base = POOLS.definition
    assert Registry([POOLS]).of_pools(("gpu",)).providers() == {"painter"}
    assert Registry([POOLS]).of_pools(("default",)).providers() == {"embedder", "language_model"}
    both = offered()
    assert both.keys() == {base, f"{base}/gpu"}
    assert offered("default") == {base: both[base]}
    assert offered("gpu") == {f"{base}/gpu": both[f"{base}/gpu"]}
    assert both[f"{base}/gpu"].keys() == {"drawn", "enlarged"}
    assert all(maker.endswith("*joined") for maker in both[f"{base}/gpu"].values())
    assert both[base]["shown"].endswith("*enlarged")
    assert "*" not in both[base]["joined"]
