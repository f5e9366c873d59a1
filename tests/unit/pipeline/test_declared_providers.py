"""Which providers exist, and which steps may take them, is known without opening any."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.checks import provider_mistakes
from headstart_service.pipeline.declared_providers import declared_providers
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.provider_factory import load_factory
from headstart_service.pipeline.step import step
from tests.support.own_providers import written


class Inputs(BaseModel):
    item: str = ""


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path)
    monkeypatch.setenv("STOCK_FOLDER", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("stock_providers", None)


@pytest.mark.parametrize(
    ("references", "rule"),
    [
        (["stock"], r"HEADSTART_PROVIDERS: 'stock' must be module:name, or parameter=module:name"),
        (["a:B"], r"named 'B': a name is an identifier"),
        (["my-shelf=a:b"], r"named 'my-shelf'"),
        (["class=a:b"], r"named 'class'"),
        (["http=a:b"], r"a:b cannot be named http, which is a built-in provider, as are embedder"),
        (["step_digest=a:b"], r"cannot be named step_digest"),
        (["a:b", "b=c:d"], r"two providers are named b: a:b \(HEADSTART_PROVIDERS\) and c:d"),
    ],
)
def test_a_wrong_reference_or_name_is_refused_with_its_rule(references: list[str], rule: str):
    with pytest.raises(StartupError, match=rule):
        declared_providers(references)


def test_a_reference_names_the_parameter_by_itself_or_is_given_its_name():
    found = declared_providers(["a:b", "shelf=a.b:C.d", "a:b"])
    assert {name: each.reference for name, each in found.items()} == {
        "b": "a:b",
        "shelf": "a.b:C.d",
    }
    assert found["shelf"].prefix == "HEADSTART_PROVIDER_SHELF_"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nothing", "cannot be loaded: AttributeError"),
        ("FOLDER", "is a"),
        ("bare", "is a function without @contextlib.asynccontextmanager"),
        ("Settings", "has no __aenter__ and no __aexit__"),
        ("greedy", "has the parameters one, two: a factory takes nothing, or one parameter"),
    ],
)
@pytest.mark.usefixtures("stock")
def test_what_is_no_factory_is_refused(name: str, rule: str):
    [declared] = declared_providers([f"it=stock_providers:{name}"]).values()
    with pytest.raises(StartupError, match="provider it ") as caught:
        load_factory(declared)
    assert rule in str(caught.value)


@step()
async def count(item: str, shelf: object) -> int: ...


@step(runs_on="process")
def apart(item: str, shelf: object, embedder: object) -> int: ...


@step(runs_on="ray")
def away(item: str, shelf: object) -> int: ...


@step()
async def shelf(item: str) -> int: ...


def mistakes(*steps: object, providers: str = "shelf=a:b") -> list[str]:
    pipeline = Pipeline("p", "1", "", Inputs, steps)  # type: ignore[arg-type]
    return [
        f"{each.where} {each.text}"
        for each in provider_mistakes(pipeline, declared_providers([providers]))
    ]


def test_steps_may_take_what_is_registered_where_it_can_go():
    here = "test_declared_providers.py"
    assert mistakes(count) == []
    [unknown] = mistakes(count, providers="shell=a:b")
    assert (
        "parameter shelf is no input, step or provider of pipeline p; did you mean shell?"
        in unknown
    )
    [built_in] = mistakes(apart)
    line = apart.function.__code__.co_firstlineno + 1
    assert (
        f"{here}:{line} pipeline p, step apart: parameter embedder lives in the worker" in built_in
    )
    assert "a step in a process can take no built-in provider" in built_in
    [on_ray] = mistakes(away)
    assert "parameter shelf lives in the worker, and runs_on='ray': no step on Ray can" in on_ray


def test_no_input_or_step_may_have_the_name_of_a_provider():
    [clash] = mistakes(shelf)
    assert "shelf is both a step and a provider, a:b (HEADSTART_PROVIDERS): rename one" in clash
    [other] = mistakes(step()(shelf.function), providers="item=a:b")
    assert "item is both an input and a provider" in other
