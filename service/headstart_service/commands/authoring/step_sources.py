"""Identifies the code of each step, so that an edit of one leaves the results of others.

A step's code is its function, with its decorator, and all in the author's files that belongs to no
step: imports, helpers, models. Layout and comments do not count. A step that another step or a
helper names counts where it is named.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def step_sources(pipeline: Pipeline, files: Iterable[Path]) -> Mapping[str, str]:
    """Return for each step a digest of its code and of that of the steps that it needs."""
    codes = [
        (step.name, code)
        for step in pipeline.steps
        if (code := getattr(inspect.unwrap(step.function), "__code__", None)) is not None
    ]
    taker = _Taker()
    trees = []
    for file in sorted({file.absolute() for file in files}):
        if (tree := _parsed(file)) is not None:
            own = (
                (c.co_firstlineno, n) for n, c in codes if Path(c.co_filename).absolute() == file
            )
            taker.take(tree, set(own))
            trees.append(tree)
    shared = sha256("\n".join(ast.dump(tree) for tree in trees if tree.body).encode()).hexdigest()
    named = {name: _calls(each) & taker.found.keys() for name, each in taker.found.items()}
    everywhere = {name for tree in trees for name in _outside(tree) & taker.found.keys()}
    digests: dict[str, str] = {}
    for name in pipeline.order:
        digest = sha256(shared.encode())
        for each in sorted(_closure({name} | everywhere, named)):
            digest.update(ast.dump(taker.found[each]).encode() if each in taker.found else b"")
        for need in pipeline.needs(pipeline.by_name[name]):
            digest.update(digests[need].encode())
        digests[name] = digest.hexdigest()
    return digests


class _Taker(ast.NodeTransformer):
    """Takes the functions of steps out of a module."""

    def __init__(self) -> None:
        self.found: dict[str, _Function] = {}
        self._steps: set[tuple[int, str]] = set()

    def take(self, tree: ast.Module, steps: set[tuple[int, str]]) -> None:
        """Take these steps, each a line and a name, out of a module."""
        self._steps = steps
        self.visit(tree)

    def _take(self, node: _Function) -> ast.AST | None:
        first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
        if (first, node.name) not in self._steps:
            return self.generic_visit(node)
        self.found[node.name] = node
        return None

    visit_FunctionDef = _take  # noqa: N815  # ast's names
    visit_AsyncFunctionDef = _take  # noqa: N815


def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # no step of the pipeline comes from it


def _names(node: ast.AST) -> set[str]:
    """Return what the code names: variables and attributes."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _calls(function: _Function) -> set[str]:
    """Return what a step names beside its parameters, whose names are those of its needs."""
    arguments = function.args
    return _names(function) - {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}


def _outside(tree: ast.Module) -> set[str]:
    """Return what a module names outside of its pipelines' declarations."""
    return {name for node in tree.body if not _declares(node) for name in _names(node)}


def _declares(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(value=ast.Call(func=called)) | ast.AnnAssign(value=ast.Call(func=called)):
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            return name == "Pipeline"
    return False


def _closure(names: set[str], named: Mapping[str, set[str]]) -> set[str]:
    """Return these steps and all that they name, directly or through others."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left |= named.get(name, set())
    return found
