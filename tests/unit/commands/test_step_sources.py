"""Which steps an edit of the author's files concerns."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from headstart_service.commands.authoring.step_sources import StepSources

HELPERS = """\
def lower(word):
    return word.lower()
"""
MODULE = """\
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step
from edited_helpers import lower
class Text(BaseModel):
    text: str
LIMIT = 3
@step(required=True)
async def words(text: str) -> list[str]:
    return [lower(w) for w in text.split()]
@step()
async def count(words: list[str]) -> int:
    return len(words)
@step()
async def double(count: int) -> int:
    return count * 2
@step()
async def again(text: str) -> int:
    return await count([text])
@step()
async def alone(text: str) -> int:
    return 1
TEXT = Pipeline("text", "1", "", Text, (words, count, double, again, alone))
"""
ALL = {"words", "count", "double", "again", "alone"}


def save(path: Path, text: str) -> None:
    """Write a file as editors do: another inode tells even two writes of one moment apart."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns the steps that an edit concerns."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    known = StepSources()

    def sources(text: str, helpers: str) -> dict[str, str]:
        save(tmp_path / "edited.py", text)
        save(tmp_path / "edited_helpers.py", helpers)
        sys.modules.pop("edited", None)
        pipeline = importlib.import_module("edited").TEXT
        found = dict(known.of(pipeline, tmp_path.glob("*.py")))
        assert found == known.of(pipeline, tmp_path.glob("*.py"))
        return found

    def compare(old: str, new: str, module: str = MODULE) -> set[str]:
        assert old in module + HELPERS
        before = sources(module, HELPERS)
        after = sources(module.replace(old, new), HELPERS.replace(old, new))
        return {name for name in after if before.get(name) != after[name]}

    yield compare
    sys.modules.pop("edited", None)
    sys.modules.pop("edited_helpers", None)


@pytest.mark.parametrize(
    ("old", "new", "concerned"),
    [
        ("return 1\n", "return 2\n", {"alone"}),
        ("count * 2", "count * 3", {"double"}),
        ("len(words)", "len(words) + 1", {"count", "double", "again"}),
        ("@step()\nasync def double", "@step(version='2')\nasync def double", {"double"}),
        ("text.split()", "text.split(',')", {"words", "count", "double"}),
        ("LIMIT = 3", "LIMIT = 4", ALL),
        ("text: str\nLIMIT", "text: str\n    more: int = 1\nLIMIT", ALL),
        ("word.lower()", "word.upper()", ALL),
        ("word.lower()", "(\n        word.lower())  # layout", set()),
        ('("text", "1"', '("text", "2"', ALL),
        ("LIMIT = 3", "LIMIT = 3  # why\n\n", set()),
        ("count * 2", "(count\n        * 2)  # twice", set()),
    ],
)
def test_an_edit_concerns_the_steps_that_run_it(changed, old, new, concerned):
    assert changed(old, new) == concerned


def test_a_step_with_a_second_decorator_is_found(changed):
    both = "@step()\n@lower_case\nasync def alone"
    text = MODULE.replace("@step()\nasync def alone", both).replace(
        "LIMIT = 3\n",
        "import functools\n"
        "def lower_case(function):\n"
        "    @functools.wraps(function)\n"
        "    async def inner(**given):\n"
        "        return await function(**given)\n"
        "    return inner\n",
    )
    assert changed(MODULE, text) == ALL
    assert changed("return 1\n", "return 2\n", text) == {"alone"}


def test_a_helper_that_calls_a_step_carries_it_everywhere(changed):
    helper = "LIMIT = 3\ndef both(text):\n    return alone(text)\n"
    text = MODULE.replace("LIMIT = 3\n", helper)
    assert changed(MODULE, text) == ALL
    assert changed(MODULE, text.replace("return 1\n", "return 2\n")) == ALL


def test_after_a_change_only_that_file_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parsed_once.py").write_text(MODULE.replace("edited_helpers", "other_helpers"))
    (tmp_path / "other_helpers.py").write_text(HELPERS)
    for number in range(20):
        (tmp_path / f"beside_{number}.py").write_text(f"NUMBER = {number}\n")
    pipeline = importlib.import_module("parsed_once").TEXT
    known = StepSources()
    before = known.of(pipeline, tmp_path.glob("*.py"))
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or parse(text))

    save(tmp_path / "beside_7.py", "NUMBER = 7  # as before\n")
    assert known.of(pipeline, tmp_path.glob("*.py")) == before
    assert parsed == [b"NUMBER = 7\n", b"NUMBER = 7  # as before\n"]
    save(tmp_path / "beside_7.py", "NUMBER = 8\n")
    after = known.of(pipeline, tmp_path.glob("*.py"))
    assert {name for name in after if after[name] != before[name]} == ALL
    assert len(parsed) == 4
