"""Decides by the kind of an exception whether its step is tried again.

Kinds are compared by name, because an exception that another process raised cannot come here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

Kinds = tuple[tuple[str, ...], ...]
"""Of each exception in a group, or of one alone: the names of its class and of those above it."""

MISTAKES: Final[tuple[type[Exception], ...]] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What another try raises again: errors of the code, or of what it was given."""


def kinds_of(error: BaseException) -> Kinds:
    """Return the kinds of an exception, or of each one in its group."""
    return tuple(
        tuple(_name(each) for each in type(leaf).__mro__ if each is not object)
        for leaf in _leaves(error)
    )


def may_retry(kinds: Kinds, retry_on: Collection[type[BaseException]] | None) -> bool:
    """Return whether exceptions of these kinds allow another try.

    All of them must be of `retry_on`; without it none may be of `MISTAKES`.
    """
    if retry_on is None:
        return not any(_is_any(kind, MISTAKES) for kind in kinds)
    return bool(kinds) and all(_is_any(kind, retry_on) for kind in kinds)


def _is_any(kind: Collection[str], classes: Collection[type[BaseException]]) -> bool:
    return any(_name(each) in kind for each in classes)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
