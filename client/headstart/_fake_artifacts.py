"""Values of scripted steps as artifacts, in the form that the service writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.struct_pb2 import Value

from headstart._artifacts import Tensor
from headstart.v1 import precompute_pb2 as pb

# Up to here a double holds every whole number exactly.
_LARGEST_EXACT_INT: Final = 2**53


def artifact(value: Any) -> pb.Artifact:
    """A value as one of the service's artifacts: bytes, an array, or JSON.

    Raises TypeError when it is none of these.
    """
    message = pb.Artifact()
    if isinstance(value, bytes):
        message.data = value
    elif isinstance(value, Tensor):
        _write_tensor(message.tensor, value.dtype, value.shape, value.values)
    elif hasattr(value, "__array__"):
        flat = value.ravel().tolist()
        _write_tensor(message.tensor, str(value.dtype), value.shape, flat)
    else:
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        message.json.SetInParent()
        _Json(message).write(plain, message.json)
    return message


def _write_tensor(
    message: pb.Tensor, dtype: str, shape: Sequence[int], values: Sequence[Any]
) -> None:
    message.shape.extend(shape)
    message.dtype = "" if dtype == "float32" else dtype
    parts = dtype.startswith("complex")
    message.values.extend(float(each.real) for each in values)
    if parts:
        message.doubles.extend(part for each in values for part in (each.real, each.imag))
    elif dtype == "float64":
        message.doubles.extend(values)
    elif dtype == "uint64":
        message.unsigned_integers.extend(values)
    elif dtype in {"int32", "int64", "uint32"}:
        message.integers.extend(values)


class _Json:
    """Writes an artifact's JSON, noting its numbers as the proto file says."""

    def __init__(self, message: pb.Artifact) -> None:
        self._message = message
        self._met = 0

    def write(self, value: Any, into: Value) -> None:
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        if plain is None:
            into.null_value = 0  # type: ignore[assignment]  # the only one of its enum
        elif isinstance(plain, bool):
            into.bool_value = plain
        elif isinstance(plain, int | float):
            self._write_number(plain, into)
        elif isinstance(plain, str):
            into.string_value = plain
        elif isinstance(plain, Mapping):
            into.struct_value.SetInParent()
            for name in sorted(plain):
                self.write(plain[name], into.struct_value.fields[name])
        elif isinstance(plain, list | tuple):
            into.list_value.SetInParent()
            for each in plain:
                self.write(each, into.list_value.values.add())
        else:
            raise TypeError(f"{type(value).__name__} is not bytes, an array or JSON")

    def _write_number(self, number: Any, into: Value) -> None:
        into.number_value = number
        if isinstance(number, float) and number.is_integer():
            self._message.whole_floats.append(self._met)
        elif isinstance(number, int) and abs(number) > _LARGEST_EXACT_INT:
            self._message.large_integers[self._met] = str(number)
        self._met += 1
