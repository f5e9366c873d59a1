"""Reads the list of `headstart start --file`: a key a line, or a JSON object."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from .execution import duration

_LONGEST: Final = 2 << 20
"""Bytes of a line."""
_TIMES: Final = ("expected_need_in", "ttl")
_FIELDS: Final = ("key", "pipeline", "inputs", *_TIMES, "restart")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the list."""

    number: int
    key: str
    start: Any
    """A `headstart.Start`."""
    size: int


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number; of one that is too long no more than that shows."""
    number = 0
    while raw := stream.readline(_LONGEST + 1):
        number += 1
        yield number, raw
        while len(raw) > _LONGEST and not raw.endswith(b"\n"):
            raw = stream.readline(_LONGEST + 1)


def line_of(number: int, raw: bytes, common: Mapping[str, Any]) -> Line | None:
    """Return the start that a line is; None for an empty one. Raises ValueError."""
    import headstart

    if len(raw) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} bytes")
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: {error.reason}") from None
    if not text:
        return None
    fields = {**common, **(_object(text) if text.startswith("{") else {"key": text})}
    for name in ("key", "pipeline"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            how = ", or give --pipeline" if name == "pipeline" else ""
            raise ValueError(f"{name} must be a text, is {_shown(fields.get(name))}{how}")
    if not isinstance(fields["inputs"], dict):
        raise ValueError(  # noqa: TRY004  # a line's text is wrong, not a type of this code
            f"inputs must be an object, is {_shown(fields['inputs'])}"
        )
    if not isinstance(fields["restart"], bool):
        raise ValueError(  # noqa: TRY004  # as above
            f"restart must be true or false, is {_shown(fields['restart'])}"
        )
    for name in _TIMES:
        fields[name] = _seconds(name, fields[name])
    return Line(number, fields["key"], headstart.Start(**fields), len(raw))


def _object(text: str) -> dict[str, Any]:
    from headstart._for_service import InputsError, read_inputs, with_suggestion

    try:
        found = read_inputs(text)
    except InputsError as error:
        raise ValueError("; ".join(rule for _, rule in error.rules)) from None
    if unknown := [name for name in found if name not in _FIELDS]:
        rule = f"must be one of: {', '.join(sorted(_FIELDS))}"
        wrong = (with_suggestion(f"field {_shown(name)} {rule}", name, _FIELDS) for name in unknown)
        raise ValueError("; ".join(wrong))
    return found


def _seconds(name: str, value: Any) -> float | None:
    """Return a time of the list in seconds: a number, or a text as options take it."""
    if value is None:
        return None
    try:
        return duration(str(value) if isinstance(value, int | float | str) else "")
    except argparse.ArgumentTypeError:
        rule = "must be seconds, or a text such as 5m"
        raise ValueError(f"{name} {rule}, is {_shown(value)}") from None


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)[:50]
