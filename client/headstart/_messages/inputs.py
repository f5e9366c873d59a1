"""A custom pipeline's inputs on the wire: written by the client, read by the service and its fake.

Imports nothing of the client, because the service's API uses it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final, NoReturn

from google.protobuf import json_format

from headstart._messages.json_text import (
    MAX_DEPTH,
    MAX_DIGITS,
    SURROGATE,
    TOO_DEEP,
    TOO_LONG,
    NotJson,
    is_text,
    read_json,
    shown,
    write_json,
)
from headstart.v1 import precompute_pb2 as pb

INPUTS: Final = "custom.inputs"
"""The path of the inputs in violations, whichever field brought them."""
_TEXT: Final = "custom.inputs_json"
_MAX_BYTES: Final = 1 << 20
_BEYOND: Final = 10**MAX_DIGITS
_FIRST_INEXACT: Final = 2**53
"""The least whole number that has a neighbour with the same double."""
_PATH: Final = 40
"""Characters of a path in inputs that nest too deeply."""
_INEXACT: Final = (
    "must be more than -2^53 and less than 2^53, is {:.17g}: a Struct's numbers are doubles, "
    "which round such whole numbers; send the inputs as `inputs_json`"
)


class InputsError(ValueError):
    """Inputs that break rules; `rules` has the path of each field and its rule."""

    def __init__(self, rules: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {rule}" for path, rule in rules))
        self.rules = rules


def write_inputs(inputs: Mapping[str, Any]) -> str:
    """Write inputs as JSON text, every whole number exactly.

    Takes None, booleans, numbers, text, lists, tuples, and mappings of text to these. Raises
    InputsError that names each value which JSON cannot express.
    """
    if not isinstance(inputs, Mapping):
        raise InputsError([(INPUTS, f"must be a mapping, is {type(inputs).__name__}")])
    if rules := list(_unwritable(inputs, INPUTS, 0)):
        raise InputsError(rules)
    return write_json(inputs)


def read_inputs(text: str) -> dict[str, Any]:
    """Read inputs from JSON text by the rules of `CustomSpec.inputs_json`.

    Raises InputsError that names `custom.inputs_json`.
    """
    if (size := len(text.encode("utf-8", "surrogatepass"))) > _MAX_BYTES:
        _refuse(f"must be at most {_MAX_BYTES} bytes, is {size}")
    try:
        inputs = read_json(text)
    except NotJson as error:
        _refuse(str(error))
    if not isinstance(inputs, dict):
        _refuse(f"must be a JSON object, is {shown(text.strip())}")
    return inputs


def inputs_of(spec: pb.CustomSpec) -> dict[str, Any]:
    """Return the inputs that a request has, in either form. Raises InputsError."""
    if spec.inputs_json:
        if spec.HasField("inputs"):
            _refuse("must be empty where `inputs` is set: send one of them")
        return read_inputs(spec.inputs_json)
    size = spec.inputs.ByteSize()
    if size > _MAX_BYTES:
        raise InputsError([(INPUTS, f"must be at most {_MAX_BYTES} bytes, is {size}")])
    try:
        inputs: dict[str, Any] = json_format.MessageToDict(spec.inputs)
    except (ValueError, json_format.Error) as error:
        rule = "must not hold NaN or infinity: JSON has neither"
        raise InputsError([(INPUTS, rule)]) from error
    if rules := sorted(_inexact(inputs, INPUTS)):  # a Struct has its names in any order
        raise InputsError(rules)
    return inputs


def _refuse(rule: str) -> NoReturn:
    raise InputsError([(_TEXT, rule)]) from None


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return the names and values of an object, or the places and values of an array."""
    return iter(value.items()) if isinstance(value, Mapping) else enumerate(value)


def _unwritable(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:  # noqa: C901, PLR0912  # a type a line
    """Return the rules that a caller's value breaks."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not is_text(value):
            yield path, SURROGATE
    elif isinstance(value, int):
        if abs(value) >= _BEYOND:
            yield path, TOO_LONG
    elif isinstance(value, float):
        if not isfinite(value):
            yield path, f"must be a finite number, is {value}: JSON has no such number"
    elif not isinstance(value, Mapping | list | tuple):
        kind = type(value).__name__
        yield path, f"must be what JSON can express, is {kind}: convert it, to text for example"
    elif depth == MAX_DEPTH:
        # Stop at once: a value that holds itself has no end.
        raise InputsError([(path[: len(INPUTS) + _PATH], TOO_DEEP)])
    else:
        for name, item in _items(value):
            if not isinstance(value, Mapping) or (isinstance(name, str) and is_text(name)):
                yield from _unwritable(item, f"{path}.{name}", depth + 1)
            elif isinstance(name, str):
                yield path, f"must have names in Unicode text, has {shown(name)}"
            else:
                yield path, f"must have text as names, has {shown(repr(name))}"


def _inexact(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Return the whole numbers of a Struct whose doubles also stand for other whole numbers."""
    for name, item in _items(value):
        if isinstance(item, int | float):
            if abs(item) >= _FIRST_INEXACT and float(item).is_integer():
                yield f"{path}.{name}", _INEXACT.format(item)
        elif isinstance(item, dict | list):
            yield from _inexact(item, f"{path}.{name}")
