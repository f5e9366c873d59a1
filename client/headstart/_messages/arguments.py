"""Checks the types of arguments: each error names the argument, what it is and what it may be.

Ranges are the server's matter, which names every violation at once. Refused here is only what
cannot be put on the wire, because the error of gRPC or protobuf would not name the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import inf
from numbers import Real
from operator import index
from typing import Any, Final, NoReturn
from uuid import UUID

_SECONDS: Final = "seconds (int or float) or a timedelta"


def wrong_type(name: str, value: object, allowed: str, advice: str = "") -> NoReturn:
    """Raise TypeError: the argument `name` must be `allowed`."""
    message = f"{name} must be {allowed}, not {_kind(value)}"
    raise TypeError(f"{message}: {advice}" if advice else message)


def text(name: str, value: Any) -> str:
    """Return a text. Raises TypeError for anything else."""
    if isinstance(value, str):
        return value
    convertible = isinstance(value, int | UUID) and not isinstance(value, bool)
    wrong_type(name, value, "a str", f"pass str({name})" if convertible else "")


def optional_text(name: str, value: Any) -> str | None:
    """Return a text or None. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        wrong_type(name, value, "a str or None")
    found: str | None = value
    return found


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Return the texts of an iterable. Raises TypeError for a lone text, and for anything else."""
    allowed = "a list or another iterable of str"
    if isinstance(value, str):
        wrong_type(name, value, allowed, f"pass [{value!r}]")
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        wrong_type(name, value, allowed)
    found = tuple(value)
    for place, each in enumerate(found):
        if not isinstance(each, str):
            wrong_type(f"{name}[{place}]", each, "a str")
    return found


def whole(name: str, value: Any, allowed: str = "an int") -> int:
    """Return an int, numpy's too. Raises TypeError for anything else, bool included."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        wrong_type(name, value, allowed)
    return index(value)


def optional_whole(name: str, value: Any) -> int | None:
    """Return an int or None. Raises TypeError for anything else, bool included."""
    return None if value is None else whole(name, value, "an int or None")


def flag(name: str, value: Any) -> bool:
    """Return a bool. Raises TypeError for anything else."""
    if not isinstance(value, bool):
        wrong_type(name, value, "a bool")
    return value


def seconds(name: str, value: Any, allowed: str = _SECONDS) -> float:
    """Return a duration in seconds. Raises TypeError for what is neither number nor timedelta."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, Real):
        wrong_type(name, value, allowed)
    number: Any = value
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def optional_seconds(name: str, value: Any) -> float | None:
    """Return a duration in seconds, or None. Raises TypeError for anything else."""
    return None if value is None else seconds(name, value, f"{_SECONDS}, or None")


def timeout(name: str, value: Any, allowed: str = _SECONDS) -> float:
    """Return a timeout in seconds. Raises TypeError; ValueError for one that is not positive."""
    number = seconds(name, value, allowed)
    # Written so that NaN, which compares false with everything, is refused too.
    if not number > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {number:g}")
    return number


def optional_timeout(name: str, value: Any) -> float | None:
    """Return a timeout in seconds, or None. Raises as `timeout`."""
    return None if value is None else timeout(name, value, f"{_SECONDS}, or None")


def mapping(name: str, value: Any, of: str) -> Mapping[Any, Any]:
    """Return a mapping. Raises TypeError for anything else."""
    if not isinstance(value, Mapping):
        wrong_type(name, value, f"a mapping of {of}")
    return value


def instance(name: str, value: Any, kind: type[Any]) -> None:
    """Raise TypeError for what is neither an instance of `kind` nor None."""
    if value is not None and not isinstance(value, kind):
        wrong_type(name, value, f"a {kind.__name__} or None")


def text_or_function(name: str, value: Any) -> None:
    """Raise TypeError for what is neither a text, nor a function, nor None."""
    if value is not None and not isinstance(value, str) and not callable(value):
        wrong_type(name, value, "a str, a function that returns one, or None")


def function(name: str, value: Any) -> Callable[..., Any]:
    """Return a function. Raises TypeError for what cannot be called."""
    if not callable(value):
        wrong_type(name, value, "a function")
    found: Callable[..., Any] = value
    return found


def items(name: str, value: Any, kind: type[Any], shown: str) -> tuple[Any, ...]:
    """Return the instances of `kind` in an iterable. Raises TypeError for anything else."""
    allowed = f"a list or another iterable of {shown}"
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        wrong_type(name, value, allowed)
    found = tuple(value)
    for place, each in enumerate(found):
        if not isinstance(each, kind):
            wrong_type(f"{name}[{place}]", each, shown)
    return found


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
