"""Writes the table of exit codes in docs/cli.md from their docstrings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from headstart_service.base import exit_codes

from .markers import replaced, row
from .pins import ROOT

PAGE: Final = ROOT / "docs" / "cli.md"


def page(text: str) -> str:
    """Return docs/cli.md with its table of exit codes."""
    return replaced(text, [row("code", "meaning"), "|---|---|", *_rows()])


def _rows() -> Iterator[str]:
    for code, meaning in pairwise(ast.parse(inspect.getsource(exit_codes)).body):
        match code, meaning:
            case (
                ast.AnnAssign(value=ast.Constant(value=int(number))),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                yield row(str(number), " ".join(words.split()))
