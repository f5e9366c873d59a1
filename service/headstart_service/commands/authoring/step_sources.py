"""Identifies the code of each step, so that an edit of one leaves the results of others.

A step's code is its function, with its decorator, and all in the author's files that belongs to no
step: imports, helpers, models. Layout and comments do not count. A step that another step or a
helper names counts where it is named.
"""

from __future__ import annotations

import ast
import inspect
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.file_changes import Fingerprint, fingerprint

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Place = tuple[int, str]
"""The line and the name of a step's function."""


class StepSources:
    """Computes the digests of steps, and keeps what each file has given until it changes.

    A file is parsed if it has a step, or may name one. Another one is only read: once it changes,
    both versions are parsed, because layout does not count. Any thread may call it.
    """

    def __init__(self) -> None:
        """Know no file yet."""
        self._lock = threading.Lock()
        self._files: dict[Path, _File] = {}

    def of(self, pipeline: Pipeline, files: Iterable[Path]) -> Mapping[str, str]:
        """Return for each step a digest of its code and of that of the steps that it needs."""
        codes = [
            (Path(code.co_filename).absolute(), (code.co_firstlineno, step.name))
            for step in pipeline.steps
            if (code := getattr(inspect.unwrap(step.function), "__code__", None)) is not None
        ]
        names = frozenset(name for _, (_, name) in codes)
        with self._lock:
            self._files = {
                file: self._read(file, _Purpose(frozenset(p for f, p in codes if f == file), names))
                for file in sorted({file.absolute() for file in files})
            }
            return _digests(pipeline, self._files.values())

    def _read(self, path: Path, purpose: _Purpose) -> _File:
        before = self._files.get(path)
        seen = fingerprint([path])
        if before is not None and (before.seen, before.purpose) == (seen, purpose):
            return before
        try:
            content = path.read_bytes()
        except OSError:
            return _File(seen, purpose)
        if (purpose.places or purpose.mentioned(content)) and (
            tree := _parsed(content)
        ) is not None:
            return _of_tree(tree, seen, purpose, content)
        if before is not None and not before.parsed and _same_code(before.content, content):
            return _File(seen, purpose, content, before.rest)
        rest = b"" if _is_blank(content) else sha256(content).digest()
        return _File(seen, purpose, content, rest)


@dataclass(frozen=True, slots=True)
class _Purpose:
    """What a file is read for."""

    places: frozenset[_Place]
    """The steps in it."""
    names: frozenset[str]
    """All steps of the pipeline."""

    def mentioned(self, content: bytes) -> bool:
        """Return whether the content may name a step."""
        return any(
            re.search(rb"\b%b\b" % name.encode() if name.isascii() else name.encode(), content)
            for name in self.names
        )


@dataclass(frozen=True, slots=True)
class _StepCode:
    """The code of one step."""

    dump: bytes
    calls: frozenset[str]
    """What it names beside its parameters, whose names are those of its needs."""


@dataclass(frozen=True, slots=True)
class _File:
    """What a file gives to the digests."""

    seen: Fingerprint
    purpose: _Purpose
    content: bytes = b""
    rest: bytes = b""
    """A digest of what belongs to no step; empty if there is nothing."""
    parsed: bool = False
    outside: frozenset[str] = frozenset()
    """What it names outside of its pipelines' declarations."""
    steps: Mapping[str, _StepCode] = field(default_factory=dict)


def _of_tree(tree: ast.Module, seen: Fingerprint, purpose: _Purpose, content: bytes) -> _File:
    taker = _Taker(purpose.places)
    taker.visit(tree)
    steps = {n: _StepCode(ast.dump(f).encode(), _calls(f)) for n, f in taker.found.items()}
    rest = sha256(ast.dump(tree).encode()).digest() if tree.body else b""
    return _File(seen, purpose, content, rest, parsed=True, outside=_outside(tree), steps=steps)


def _digests(pipeline: Pipeline, files: Collection[_File]) -> Mapping[str, str]:
    found = {name: code for file in files for name, code in file.steps.items()}
    shared = b"".join(file.rest for file in files)
    named = {name: code.calls & found.keys() for name, code in found.items()}
    everywhere = {name for file in files for name in file.outside & found.keys()}
    digests: dict[str, str] = {}
    for name in pipeline.order:
        digest = sha256(shared)
        for each in sorted(_closure({name} | everywhere, named)):
            digest.update(found[each].dump if each in found else b"")
        for need in pipeline.needs(pipeline.by_name[name]):
            digest.update(digests[need].encode())
        digests[name] = digest.hexdigest()
    return digests


class _Taker(ast.NodeTransformer):
    """Takes the functions of steps out of a module."""

    def __init__(self, steps: frozenset[_Place]) -> None:
        """Take these."""
        self.found: dict[str, _Function] = {}
        self._steps = steps

    def _take(self, node: _Function) -> ast.AST | None:
        first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
        if (first, node.name) not in self._steps:
            return self.generic_visit(node)
        self.found[node.name] = node
        return None

    visit_FunctionDef = _take  # noqa: N815  # ast's names
    visit_AsyncFunctionDef = _take  # noqa: N815


def _parsed(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None  # no step of the pipeline comes from it


def _same_code(before: bytes, after: bytes) -> bool:
    """Return whether two versions of a file differ in layout and comments alone."""
    trees = [_parsed(before), _parsed(after)]
    dumps = {ast.dump(tree) if tree is not None else None for tree in trees}
    return len(dumps) == 1 and None not in dumps


def _is_blank(content: bytes) -> bool:
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in content.splitlines())


def _names(node: ast.AST) -> set[str]:
    """Return what the code names: variables and attributes."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _calls(function: _Function) -> frozenset[str]:
    arguments = function.args
    needs = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
    return frozenset(_names(function) - needs)


def _outside(tree: ast.Module) -> frozenset[str]:
    """Return what a module names outside of its pipelines' declarations."""
    return frozenset(name for node in tree.body if not _declares(node) for name in _names(node))


def _declares(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(value=ast.Call(func=called)) | ast.AnnAssign(value=ast.Call(func=called)):
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            return name == "Pipeline"
    return False


def _closure(names: set[str], named: Mapping[str, frozenset[str]]) -> set[str]:
    """Return these steps and all that they name, directly or through others."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left |= named.get(name, frozenset())
    return found
