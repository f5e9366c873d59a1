"""Plain JSON as a protobuf Value, with what separates its integers from its floats again.

A Value has doubles only: see `whole_floats` of Artifact in the proto file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import Value

from headstart.v1 import precompute_pb2 as pb

_LARGEST_EXACT: Final = 2**53
_LARGEST_SHOWN: Final = 2**1023
"""Beyond it an integer has no double near it."""
_AROUND: Final = 6
"""Messages around a Value: the watch's answer, the results, theirs, a map entry, the artifact."""
_DEEPEST: Final = 96
"""Messages inside each other; protobuf's readers stop at 100, and the record could not be read."""


class NotJson(ValueError):
    """A value that JSON or protobuf cannot hold; the text names where and why."""


def write_json(plain: Any, artifact: pb.Artifact) -> None:
    """Write None, booleans, numbers, text, lists, tuples and mappings of text to these.

    Raises NotJson for anything else, for NaN and infinity, and for what nests too deeply.
    """
    _Writer(artifact).write(plain, artifact.json, _AROUND)


def read_json(artifact: pb.Artifact) -> Any:
    """What `write_json` was given, with lists for tuples."""
    return _Reader(artifact).read(artifact.json)


class _Writer:
    def __init__(self, artifact: pb.Artifact) -> None:
        self._artifact = artifact
        self._numbers = 0

    def write(self, plain: Any, into: Value, depth: int) -> None:
        if plain is None:
            into.null_value = 0  # type: ignore[assignment]  # the enum's only number
        elif isinstance(plain, bool):
            into.bool_value = plain
        elif isinstance(plain, str):
            _write_text(plain, into)
        elif isinstance(plain, int | float):
            into.number_value = self._number(plain)
            self._numbers += 1
        elif depth > _DEEPEST:
            raise NotJson("nests too deeply: protobuf's readers stop at 100 messages")
        elif isinstance(plain, list | tuple):
            values = into.list_value.values
            into.list_value.SetInParent()
            for item in plain:
                self.write(item, values.add(), depth + 2)
        elif isinstance(plain, Mapping):
            self._write_object(plain, into, depth)
        else:
            raise NotJson(f"holds {type(plain).__name__}, which is not JSON")

    def _write_object(self, plain: Mapping[Any, Any], into: Value, depth: int) -> None:
        for name in plain:
            if not isinstance(name, str):
                raise NotJson(f"holds an object with a key of type {type(name).__name__}, not str")
        fields = into.struct_value.fields
        into.struct_value.SetInParent()
        for name in sorted(plain):
            _checked_text(name)
            self.write(plain[name], fields[name], depth + 3)

    def _number(self, plain: float) -> float:
        if isinstance(plain, float):
            if not math.isfinite(plain):
                raise NotJson(f"holds {plain}, which is not JSON")
            if plain.is_integer():
                self._artifact.whole_floats.append(self._numbers)
            return plain
        if abs(plain) > _LARGEST_EXACT:
            if abs(plain) > _LARGEST_SHOWN:
                raise NotJson(f"holds an integer of {plain.bit_length()} bits; 1,023 are the most")
            self._artifact.large_integers[self._numbers] = str(plain)
        return float(plain)


def _write_text(text: str, into: Value) -> None:
    _checked_text(text)
    into.string_value = text


def _checked_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotJson("holds text that is not Unicode: a lone surrogate") from None


class _Reader:
    def __init__(self, artifact: pb.Artifact) -> None:
        self._floats = frozenset(artifact.whole_floats)
        self._large = dict(artifact.large_integers)
        self._numbers = 0

    def read(self, value: Value) -> Any:
        kind = value.WhichOneof("kind")
        if kind == "list_value":
            return [self.read(item) for item in value.list_value.values]
        if kind == "struct_value":
            fields = value.struct_value.fields
            return {name: self.read(fields[name]) for name in sorted(fields)}
        if kind == "number_value":
            return self._number(value.number_value)
        return None if kind in (None, "null_value") else getattr(value, kind)

    def _number(self, number: float) -> int | float:
        place = self._numbers
        self._numbers += 1
        if place in self._large:
            return int(self._large[place])
        return number if place in self._floats or not number.is_integer() else int(number)
