"""What the steps of custom pipelines gave, in the types that they returned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeAlias, get_args, get_origin

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from headstart.v1 import precompute_pb2 as pb

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

# Up to here a double holds every whole number exactly.
_LARGEST_EXACT_INT: Final = 2**53


_DIGITS: Final = re.compile(r"-?[1-9][0-9]{0,308}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A dense array of numbers in row-major order; `numpy.asarray(tensor)` makes it numpy's."""

    shape: tuple[int, ...]
    values: tuple[bool, ...] | tuple[int, ...] | tuple[float, ...] | tuple[complex, ...]
    """As many as the product of `shape`."""
    dtype: str = "float32"
    """Numpy's name of the values' type, such as `float32` or `int64`."""

    def to_numpy(self) -> Any:
        """Return the array, with its shape and type. Raises ImportError without numpy."""
        import numpy as np

        return np.array(self.values, dtype=self.dtype).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # noqa: FBT001  # numpy's signature
        if copy is False:
            raise ValueError("a Tensor cannot become an array without a copy")
        array = self.to_numpy()
        return array if dtype is None else array.astype(dtype)


Artifact: TypeAlias = Json | Tensor | bytes
"""What one step of a custom pipeline returned: plain JSON values, an array, or bytes."""


def artifact_from(message: pb.Artifact) -> Artifact:
    """Convert what one step gave."""
    match message.WhichOneof("value"):
        case "tensor":
            return _tensor_from(message.tensor)
        case "data":
            return message.data
        case "json":
            return _Numbers(message).read(message.json)
        case _:
            return None


def object_from(struct: Struct) -> dict[str, Json]:
    """Convert a JSON object that does not distinguish floats from whole numbers."""
    numbers = _Numbers(pb.Artifact())
    return {name: numbers.read(struct.fields[name]) for name in sorted(struct.fields)}


def has_wrong_integers(message: pb.Artifact) -> bool:
    """Return whether `large_integers` names a number of `json` by digits of another."""
    try:
        _Numbers(message, check=True).read(message.json)
    except ValueError:
        return True
    return False


def as_type_of(value: Artifact, kind: Any) -> Any:  # noqa: PLR0911  # one kind a line
    """Return the value as a `kind`, by default as it is. Raises TypeError if it is of another."""
    if kind is None or kind is Any:
        return value
    origin, inside = get_origin(kind), get_args(kind)
    if origin is list and isinstance(value, list) and inside:
        return [as_type_of(item, inside[0]) for item in value]
    if origin is dict and isinstance(value, dict) and len(inside) == 2:  # noqa: PLR2004  # key and value
        return {name: as_type_of(item, inside[1]) for name, item in value.items()}
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    wanted = origin or kind
    if isinstance(value, Tensor) and wanted is not Tensor and _is_array(wanted):
        return value.to_numpy()
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    exact = isinstance(value, bool) == (wanted is bool)
    if isinstance(wanted, type) and isinstance(value, wanted) and (exact or wanted is object):
        return value
    raise TypeError(
        f"the artifact is {type(value).__name__}, not {getattr(kind, '__name__', kind)}"
    )


def _is_array(kind: Any) -> bool:
    return getattr(kind, "__name__", "") == "ndarray" and kind.__module__ == "numpy"


def _tensor_from(message: pb.Tensor) -> Tensor:
    dtype = message.dtype or "float32"
    values: tuple[Any, ...]
    if dtype.startswith("complex"):
        parts = message.doubles
        values = tuple(map(complex, parts[::2], parts[1::2]))
    elif dtype == "float64":
        values = tuple(message.doubles)
    elif dtype == "uint64":
        values = tuple(message.unsigned_integers)
    elif dtype in {"int32", "int64", "uint32"}:
        values = tuple(message.integers)
    elif dtype == "bool":
        values = tuple(map(bool, message.values))
    elif dtype.startswith(("int", "uint")):
        values = tuple(map(int, message.values))
    else:
        values = tuple(message.values)
    return Tensor(shape=tuple(message.shape), values=values, dtype=dtype)


class _Numbers:
    """Reads an artifact's JSON, counting its numbers as the proto file defines."""

    def __init__(self, message: pb.Artifact, *, check: bool = False) -> None:
        self._check = check
        self._floats = frozenset(message.whole_floats)
        self._large = dict(message.large_integers)
        self._met = 0

    def read(self, value: Value) -> Json:
        match value.WhichOneof("kind"):
            case "bool_value":
                return value.bool_value
            case "number_value":
                return self._number(value.number_value)
            case "string_value":
                return value.string_value
            case "list_value":
                return [self.read(each) for each in value.list_value.values]
            case "struct_value":
                fields = value.struct_value.fields
                return {name: self.read(fields[name]) for name in sorted(fields)}
            case _:
                return None

    def _number(self, number: float) -> int | float:
        place = self._met
        self._met += 1
        if place in self._large:
            digits = self._large[place]
            if self._check and not (_DIGITS.fullmatch(digits) and float(digits) == number):
                raise ValueError("these are not the number's digits")
            return int(digits)
        # A server sends the digits of each integer beyond a double's exactness.
        whole = number.is_integer() and abs(number) <= _LARGEST_EXACT_INT
        return int(number) if whole and place not in self._floats else number


def artifact_to(value: Any) -> pb.Artifact:
    """Convert what a caller has computed: bytes, an array or Tensor, or what JSON can hold.

    A pydantic model becomes its fields. Raises TypeError or ValueError for anything else.
    """
    message = pb.Artifact()
    if isinstance(value, bytes):
        message.data = value
    elif isinstance(value, Tensor):
        _write_tensor(message.tensor, value)
    elif hasattr(value, "__array__") and hasattr(value, "dtype"):
        flat = tuple(value.ravel().tolist())
        shape = tuple(map(int, value.shape))
        _write_tensor(message.tensor, Tensor(shape=shape, values=flat, dtype=str(value.dtype)))
    else:
        _NumbersWriter(message).write(value, message.json)
    return message


def _write_tensor(message: pb.Tensor, tensor: Tensor) -> None:
    dtype, values = tensor.dtype, tensor.values
    message.shape.extend(tensor.shape)
    message.dtype = "" if dtype == "float32" else dtype
    # The field that every client reads has all numbers, though less exactly: see the proto file.
    message.values.extend(complex(each).real for each in values)
    if dtype.startswith("complex"):
        parts = [part for each in values for part in (complex(each).real, complex(each).imag)]
        message.doubles.extend(parts)
    elif dtype == "float64":
        message.doubles.extend(float(each.real) for each in values)
    elif dtype == "uint64":
        message.unsigned_integers.extend(int(each.real) for each in values)
    elif dtype in {"int32", "int64", "uint32"}:
        message.integers.extend(int(each.real) for each in values)


class _NumbersWriter:
    """Writes an artifact's JSON, counting its numbers as the proto file defines."""

    def __init__(self, message: pb.Artifact) -> None:
        self._message = message
        self._met = 0

    def write(self, value: Any, to: Value) -> None:
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json")
        if value is None:
            to.null_value = NULL_VALUE
        elif isinstance(value, bool):
            to.bool_value = value
        elif isinstance(value, int | float):
            self._write_number(value, to)
        elif isinstance(value, str):
            to.string_value = value
        elif isinstance(value, Mapping):
            to.struct_value.SetInParent()
            for name in sorted(value):
                self.write(value[name], to.struct_value.fields[name])
        elif isinstance(value, list | tuple):
            to.list_value.SetInParent()
            for each in value:
                self.write(each, to.list_value.values.add())
        else:
            raise TypeError(f"{type(value).__name__} is not bytes, an array or JSON")

    def _write_number(self, number: float, to: Value) -> None:
        if isinstance(number, float):
            if not isfinite(number):
                raise ValueError(f"{number} has no JSON form")
            if number.is_integer():
                self._message.whole_floats.append(self._met)
        elif abs(number) > _LARGEST_EXACT_INT:
            self._message.large_integers[self._met] = str(number)
        to.number_value = float(number)
        self._met += 1
