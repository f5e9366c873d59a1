"""JSON text of inputs and artifacts: one writer, and one reader with one set of rules.

Imports nothing of the client, because the service uses it too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 100
"""Objects and arrays inside each other; pydantic's reader of JSON stops at 200."""
MAX_DIGITS: Final = 640
"""Of an integer. Python refuses no such integer, whatever PYTHONINTMAXSTRDIGITS is."""
TOO_DEEP: Final = f"must nest at most {MAX_DEPTH} objects and arrays"
TOO_LONG: Final = f"must have at most {MAX_DIGITS} digits"
SURROGATE: Final = "must be Unicode text, has a lone surrogate"
_SHOWN: Final = 40
"""Characters of a wrong value in a message."""


class NotJson(ValueError):
    """Text that breaks a rule of the contract; the message is the rule."""


def write_json(value: Any) -> str:
    """Write a value as compact text, every number exactly.

    Takes what JSON can express, tuples, mappings, and pydantic models as their fields. Raises
    TypeError or ValueError for anything else.
    """
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def read_json(text: str) -> Any:
    """Read a caller's text by the rules of `CustomSpec.inputs_json`. Raises NotJson."""
    if not is_text(text):
        raise NotJson(SURROGATE)
    value = parse_json(text)
    if text.count("[") + text.count("{") > MAX_DEPTH or r"\u" in text:  # else nothing can be wrong
        _check([value], 0)
    return value


def parse_json(text: str, *, any_double: bool = False) -> Any:
    """Parse text whose objects have each name once, with integers of at most 640 digits.

    With `any_double`, a number beyond all doubles is infinity. Raises NotJson.
    """
    try:
        return (_ANY_DOUBLE if any_double else _DECODER).decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"must be JSON: {error}") from None
    except RecursionError:
        raise NotJson(TOO_DEEP) from None


def is_text(value: str) -> bool:
    """Return whether the text is Unicode: has no lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """Return the text in quotes, cut for a message."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not bytes, an array or JSON")


def _check(items: Iterable[Any], depth: int) -> None:
    """Refuse what the decoder accepts in items inside `depth` objects and arrays."""
    for item in items:
        if isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise NotJson(TOO_DEEP)
            _check(item, depth + 1)  # of an object, its names
            if isinstance(item, dict):
                _check(item.values(), depth + 1)
        elif isinstance(item, str) and not is_text(item):
            raise NotJson(f"{SURROGATE}: {shown(item)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        left = set(found)
        for name, _ in pairs:
            if name not in left:
                raise NotJson(f"must have each name once in an object, has {shown(name)} twice")
            left.remove(name)
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS and len(digits.lstrip("-")) > MAX_DIGITS:
        raise NotJson(f"integers {TOO_LONG}, one is {shown(digits)}")
    return int(digits)


def _double(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise NotJson(f"numbers must be within a double's range, one is {shown(text)}")
    return number


def _constant(name: str) -> NoReturn:
    raise NotJson(f"must not hold {name}: JSON has no such number")


_DECODER, _ANY_DOUBLE = (
    json.JSONDecoder(
        object_pairs_hook=_object, parse_int=_integer, parse_float=double, parse_constant=_constant
    )
    for double in (_double, float)
)
