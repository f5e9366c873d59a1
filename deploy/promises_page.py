"""Writes the table in docs/promises.md from the marks `promise` of the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from .markers import replaced, row
from .pins import ROOT

PAGE: Final = ROOT / "docs" / "promises.md"


def page(text: str) -> str:
    """Return docs/promises.md with a row for each test that has the mark, by the test's file."""
    return replaced(text, [row("promise", "how it is kept", "shown by"), "|---|---|---|", *_rows()])


def _rows() -> Iterator[str]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if "pytest.mark.promise(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in filter(_is_promise, node.decorator_list):
                    assert isinstance(mark, ast.Call)
                    promise, how = map(ast.literal_eval, mark.args)
                    yield row(promise, how, f"`{path.relative_to(ROOT).as_posix()}::{node.name}`")


def _is_promise(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise"
