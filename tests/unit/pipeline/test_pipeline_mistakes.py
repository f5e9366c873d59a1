"""What is wrong with a declaration is told with its line, at start, before anything runs."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.mistakes import DeclarationError, gathered
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry, load_installed, load_pipelines
from headstart_service.pipeline.step import step
from tests.support.ledger import NoInputs, pipeline_of

_HEAD = """\
from __future__ import annotations
from typing import TYPE_CHECKING, Any
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step
if TYPE_CHECKING:
    import numpy as np
    from decimal import Decimal
class In(BaseModel):
    text: str
    count: int = 1
"""
_TAIL = """
STEPS = [each for each in vars().values() if type(each).__name__ == "Step"]
P = Pipeline(name="p", version="1", description="", inputs=In, steps=STEPS)
"""
_BEFORE = len(_HEAD.splitlines())


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loads a module of these lines as a server does, and gives it back."""
    monkeypatch.syspath_prepend(tmp_path)

    def loads(lines: str, name: str = "authors"):
        (tmp_path / f"{name}.py").write_text(_HEAD + textwrap.dedent(lines) + _TAIL)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return load_pipelines([f"{name}:P"])[0]

    yield loads
    for name in [
        n for n, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", ""))
    ]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("lines", "line", "text"),
    [
        ("@step()\nasync def a(\n    text: str,\n    embeder: Any,\n) -> int: ...\n", 4, "embeder is no input, step or provider of pipeline p; did you mean embedder?"),
        ("@step()\nasync def a(zzz: Any) -> int: ...\n", 2, "providers: embedder, http, language_model"),
        ("@step()\nasync def a(b: int) -> int: ...\n@step()\nasync def b(a: int) -> int: ...\n", 2, "circle: a -> b -> a"),
        ("@step()\nasync def text() -> int: ...\n", 2, "text is both an input and a step"),
        ("@step()\nasync def a(text: str): ...\n", 2, "step a, return type: say what it returns"),
        ("@step()\nasync def a(\n) -> type: ...\n", 3, "type cannot be kept"),
        ("@step()\nasync def a() -> dict[str, np.ndarray]: ...\n", 2, "cannot be kept"),
        ("@step()\nasync def a() -> Decimal: ...\n", 2, "Decimal is not imported when the module runs"),
        ("@step()\nasync def a(count: str) -> int: ...\n", 2, "parameter count is str, but input count is int"),
        ("@step()\nasync def a() -> list[str]: ...\n@step()\nasync def b(a: list[int]) -> int: ...\n", 4, "parameter a is list[int], but step a returns list[str]"),
        ("@step()\nasync def a() -> np.ndarray: ...\n@step()\nasync def b(a: list[float]) -> int: ...\n", 4, "step a returns ndarray"),
        ("@step()\nasync def a(*args: int) -> int: ...\n", 2, "parameter args must have a plain name"),
        ("@step()\ndef a() -> AsyncIterator[str]:\n    yield ''\n", 2, "step a yields, so it must be async: write async def"),
        ("@step(runs_on='thread')\ndef a() -> AsyncIterator[str]:\n    yield ''\n", 2, "step a yields, so it must be async: write async def"),
        ("@step()\nasync def a() -> AsyncIterator[str]: ...\n", 2, "AsyncIterator[str] is for an async generator, and this function has no yield"),
        ("@step()\nasync def a() -> str:\n    yield 'x'\n", 2, "return type: an async generator is annotated -> AsyncIterator[str]"),
        ("@step()\nasync def a() -> AsyncIterator[np.ndarray]:\n    yield 1\n", 2, "list[ndarray] cannot be kept"),
        ("@step()\nasync def a() -> AsyncIterator[str | int]:\n    yield ''\n@step()\nasync def b(a: str) -> int: ...\n", 5, "parameter a is str, but step a returns int"),
        ("@step(runs_on='thread')\nasync def a() -> AsyncIterator[str]:\n    yield ''\n", 2, "step a streams, as an async generator: it must have runs_on='loop'"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line(
    load, tmp_path: Path, lines: str, line: int, text: str
):
    with pytest.raises(StartupError) as refused:
        load(lines)
    where = f"{tmp_path / 'authors.py'}:{_BEFORE + line}: "
    told = str(refused.value)
    assert where in told
    assert text in told.partition(where)[2]


def test_all_mistakes_of_a_pipeline_are_reported_together(load) -> None:
    with pytest.raises(StartupError) as refused:
        load(
            "@step()\nasync def a(count: str): ...\n@step()\nasync def b() -> type: ...\n"
            "@step()\nasync def text() -> int: ...\n"
        )
    assert len(re.findall(r"authors\.py:\d+: ", str(refused.value))) == 4


@pytest.mark.parametrize(
    "lines",
    [
        "@step()\nasync def a() -> list[str]: ...\n@step()\nasync def b(a: Sequence[str]) -> int: ...\nfrom collections.abc import Sequence\n",
        "@step()\nasync def a() -> int: ...\n@step()\nasync def b(a: float | None) -> Any: ...\n",
        "@step()\nasync def a() -> AsyncIterator[In]:\n    yield In(text='')\n@step()\nasync def b(a: list[In]) -> int: ...\n",
        "@step()\nasync def a() -> np.ndarray: ...\n@step()\nasync def b(a: np.typing.NDArray[np.float32]) -> int: ...\n",
        "@step()\nasync def a(count, text: object, embedder: Unknown) -> int: ...\n",
        "@step()\nasync def a() -> 'Later': ...\nclass Later(BaseModel):\n    x: int\n",
    ],
)  # fmt: skip
def test_what_can_be_true_is_no_mistake(load, lines: str) -> None:
    assert load(lines).name == "p"


def test_a_pipeline_without_a_codec_takes_its_steps_types() -> None:
    @step()
    async def words() -> list[str]:
        return []

    pipeline = Pipeline(name="p", version="1", description="", inputs=NoInputs, steps=[words])
    assert pipeline.codec.kinds["words"].text == "list[str]"


def test_two_pipelines_of_one_name_are_reported_with_both_places() -> None:
    first, second = pipeline_of(name="same"), Pipeline("same", "1", "", NoInputs, ())
    with pytest.raises(StartupError) as refused:
        Registry([first, second])
    places = re.findall(r"(tests\S+\.py):\d+", str(refused.value))
    assert places == ["tests/support/ledger.py", "tests/unit/pipeline/test_pipeline_mistakes.py"]


def test_the_same_pipeline_installed_and_named_by_a_setting_is_one() -> None:
    pipeline = pipeline_of(name="same")
    assert list(Registry([pipeline, pipeline])) == [pipeline]


def test_a_check_gathers_what_a_server_would_raise() -> None:
    @step()
    async def broken(broken: int) -> type: ...

    with gathered() as found:
        pipeline_of(broken)
    assert len(found) == 3
    with pytest.raises(DeclarationError) as refused:
        pipeline_of(broken)
    assert refused.value.mistakes == tuple(found)


def distribution(folder: Path, name: str, *points: str) -> None:
    """Make a distribution that offers these, as an installer leaves it."""
    info = folder / f"{name.replace('-', '_')}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
    lines = "".join(f"{point}\n" for point in points)
    (info / "entry_points.txt").write_text(f"[headstart.pipelines]\n{lines}")


def test_installed_distributions_offer_pipelines(load, tmp_path: Path) -> None:
    load("@step()\nasync def a() -> int: ...\n")
    distribution(tmp_path, "shop-pipelines", "p = authors:P")
    assert [pipeline.name for pipeline in load_installed()] == ["p"]


def test_a_broken_entry_point_is_reported_with_its_distribution(load, tmp_path: Path) -> None:
    distribution(tmp_path, "shop-pipelines", "mine = no_such_module:P")
    rule = "distribution shop-pipelines 2.1, entry point mine of headstart.pipelines: cannot load"
    with pytest.raises(StartupError, match=rule):
        load_installed()
