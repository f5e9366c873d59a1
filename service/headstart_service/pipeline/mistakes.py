"""What is wrong with a pipeline's declaration, each with the line of the author's file to mend."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_gathered: ContextVar[list[Mistake] | None] = ContextVar("gathered", default=None)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend."""

    where: str
    """As file:line."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class DeclarationError(ValueError):
    """A pipeline cannot be what it is declared to be: every mistake in it, one a line."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


@contextmanager
def gathered() -> Iterator[list[Mistake]]:
    """Gather what `refuse` is given, instead of raising it, so that a check can go on."""
    found: list[Mistake] = []
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


def refuse(mistakes: list[Mistake]) -> None:
    """Raise DeclarationError with all of them, if there are any."""
    if not mistakes:
        return
    into = _gathered.get()
    if into is None:
        raise DeclarationError(tuple(mistakes))
    into.extend(mistakes)


def refuse_one(mistake: Mistake, error: type[Exception]) -> None:
    """Raise `error` about a mistake, unless mistakes are gathered: as `refuse`."""
    into = _gathered.get()
    if into is None:
        raise error(str(mistake))
    into.append(mistake)


def caller() -> str:
    """The line outside this package that is being run, as file:line."""
    frame = sys._getframe(1)  # noqa: SLF001  # what inspect.stack does, without reading files
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        # A dataclass's __init__ comes from no file.
        if not name.startswith("<") and Path(name).parent != _PACKAGE:
            break
        frame = frame.f_back
    return place(frame.f_code.co_filename, frame.f_lineno)


def line_of(function: Callable[..., Any], parameter: str = "") -> str:
    """Where the function is defined, or this parameter of it, or its return type if `return`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
    first: int = code.co_firstlineno
    return place(code.co_filename, first + _offset(function, parameter))


def _offset(function: Callable[..., Any], parameter: str) -> int:
    """Return the lines from the first decorator to `parameter`; 0 without source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, IndexError):
        return 0
    if not isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        return 0
    if parameter == "return" and tree.returns is not None:
        return tree.returns.lineno - 1
    given = tree.args
    others = (each for each in (given.vararg, given.kwarg) if each is not None)
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *others):
        if argument.arg == parameter:
            return argument.lineno - 1
    return tree.lineno - 1


def place(file: str, line: int) -> str:
    """Return file:line, as short as can be typed here."""
    here = Path.cwd()
    path = Path(file)
    shown = os.fspath(path.relative_to(here)) if path.is_relative_to(here) else file
    return f"{shown}:{line}"
