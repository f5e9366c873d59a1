"""A step is called as the function that it decorates, and mypy knows its types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api as mypy

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import step
from tests.support.processes import ROOT

TYPED = """\
from typing import assert_type

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, Step, step


class Inputs(BaseModel):
    text: str


@step(required=True, max_attempts=2)
async def words(text: str, count: int = 3) -> list[str]:
    return text.split()[:count]


@step(runs_on="thread")
def number(words: list[str]) -> int:
    return len(words)


async def right() -> None:
    assert_type(await words("a b"), list[str])
    assert_type(number(words=["a"]), int)


async def wrong() -> None:
    await words(3)
    number(word=["a"])


def named(step: Step) -> str:
    return step.name


named(number)
PIPELINE = Pipeline("typed", "1", "", Inputs, (words, number))
"""
WRONG = ["await words(3)", 'number(word=["a"])']


@step(required=True, timeout=0.001, max_attempts=3)
async def keywords(words: list[str], count: int = 2) -> list[str]:
    if not words:
        raise StepFailed("no words")
    return words[:count]


@step(runs_on="thread")
def longest(words: list[str]) -> str:
    return max(words, key=len)


async def test_a_step_is_called_as_its_function():
    assert await keywords(["a", "b", "c"]) == ["a", "b"]
    assert await keywords(words=["a", "b", "c"], count=1) == ["a"]
    assert longest(["a", "bcd", "ef"]) == "bcd"


async def test_a_call_raises_what_the_function_raises():
    with pytest.raises(StepFailed, match="no words"):
        await keywords([])
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrods'"):
        await keywords(wrods=["a"])


def test_mypy_knows_what_a_step_takes_and_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MYPYPATH", f"{ROOT / 'client'}:{ROOT / 'service'}")
    module = tmp_path / "typed_steps.py"
    module.write_text(TYPED)
    out, err, _ = mypy.run(
        [
            *("--strict", "--config-file=", "--no-error-summary", "--follow-imports=silent"),
            f"--cache-dir={ROOT / '.mypy_cache' / 'generated'}",
            str(module),
        ]
    )
    lines = TYPED.splitlines()
    wrong = [lines[int(n) - 1].strip() for n in re.findall(r"steps\.py:(\d+): error:", out)]
    assert (wrong, err) == (WRONG, ""), out
