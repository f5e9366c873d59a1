"""What the steps of custom pipelines gave, in the types that they returned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, get_args, get_origin

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from headstart._messages.json_text import NotJson, read_json, write_json
from headstart._messages.tensors import Tensor, TensorError
from headstart.v1 import precompute_pb2 as pb

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

# Up to here a double holds every whole number exactly.
_LARGEST_EXACT_INT: Final = 2**53

Artifact: TypeAlias = Json | Tensor | bytes
"""What one step of a custom pipeline returned: plain JSON values, an array, or bytes."""


def artifact_from(message: pb.Artifact) -> Artifact:
    """Convert what one step gave. Raises ValueError that names a wrong field."""
    match message.WhichOneof("value"):
        case "tensor":
            return tensor_from(message.tensor)
        case "data":
            return message.data
        case "json":
            try:
                value: Json = json.loads(message.json)
            except ValueError as error:
                raise ValueError(f"json: must be JSON: {error}") from None
            return value
        case _:
            return None


def tensor_from(message: pb.Tensor) -> Tensor:
    """Convert an array. Raises TensorError."""
    return Tensor(dtype=message.dtype, shape=tuple(message.shape), data=message.data)


def artifact_to(value: Any) -> pb.Artifact:
    """Convert what a caller has computed: bytes, an array or Tensor, or what JSON can hold.

    A pydantic model becomes its fields. Raises TypeError or ValueError for anything else.
    """
    if isinstance(value, bytes):
        return pb.Artifact(data=value)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        tensor = value if isinstance(value, Tensor) else _tensor_of(value)
        fields = pb.Tensor(dtype=tensor.dtype, shape=tensor.shape, data=tensor.data)
        return pb.Artifact(tensor=fields)
    return pb.Artifact(json=write_json(value))


def artifact_mistakes(message: pb.Artifact) -> Iterator[tuple[str, str]]:
    """Yield the rules that a caller's artifact breaks, each after the path of its field."""
    match message.WhichOneof("value"):
        case None:
            yield "artifact", "must be set: json, tensor or data"
        case "json":
            try:
                read_json(message.json)
            except NotJson as error:
                yield "artifact.json", str(error)
        case "tensor":
            try:
                tensor_from(message.tensor)
            except TensorError as error:
                yield f"artifact.tensor.{error.field}", error.rule


def object_from(struct: Struct) -> dict[str, Json]:
    """Convert a JSON object that does not distinguish floats from whole numbers."""
    named: dict[str, Json] = _with_integers(json_format.MessageToDict(struct))
    return named


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


def _tensor_of(array: Any) -> Tensor:
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a masked array's mask cannot be kept: fill it")
    plain = np.asarray(array)
    little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return Tensor(dtype=plain.dtype.name, shape=plain.shape, data=little.tobytes())


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_integers(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT_INT
    return int(value) if whole else value
