"""Numpy arrays as tensors, and back: shape, values and type are what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headstart.v1 import precompute_pb2 as pb

from .wire_format import field, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = pb.Tensor
_EXACT: Final = {
    "float64": (_T.DOUBLES_FIELD_NUMBER, "<f8"),
    "complex64": (_T.DOUBLES_FIELD_NUMBER, "<f8"),
    "complex128": (_T.DOUBLES_FIELD_NUMBER, "<f8"),
    "int32": (_T.INTEGERS_FIELD_NUMBER, "<i8"),
    "int64": (_T.INTEGERS_FIELD_NUMBER, "<i8"),
    "uint32": (_T.INTEGERS_FIELD_NUMBER, "<i8"),
    "uint64": (_T.UNSIGNED_INTEGERS_FIELD_NUMBER, "<u8"),
}
"""The types that 32-bit floats do not hold, each with the field that does, and how."""
_IN_FLOATS: Final = frozenset(
    {"bool", "int8", "int16", "uint8", "uint16", "float16", "float32"},
)
DTYPES: Final = frozenset(_EXACT) | _IN_FLOATS
"""The types that a tensor can have, by numpy's names."""


def tensor_bytes(array: NDArray[Any]) -> bytes:
    """The array as a serialized Tensor; its dtype is one of `DTYPES`."""
    import numpy as np

    name = array.dtype.name
    flat = np.ravel(array)
    head = pb.Tensor(shape=array.shape, dtype=name).SerializeToString()
    # For readers that know only this field; a double beyond its range becomes infinity there.
    with np.errstate(over="ignore"):
        near = flat.real.astype("<f4")
    body = field(_T.VALUES_FIELD_NUMBER, near.tobytes())
    if name in _EXACT:
        number, kind = _EXACT[name]
        if array.dtype.kind == "c":
            flat = flat.astype(np.complex128).view(np.float64)
        body += field(number, packed(flat, kind))
    return head + body


def array_from(tensor: pb.Tensor) -> NDArray[Any]:
    """The array that `tensor_bytes` was given."""
    import numpy as np

    name = tensor.dtype or "float32"
    values: NDArray[Any]
    if name not in _EXACT:
        values = np.array(tensor.values, dtype=np.float32).astype(name)
    elif name.startswith("complex"):
        values = np.array(tensor.doubles, dtype=np.float64).view(np.complex128).astype(name)
    elif name == "float64":
        values = np.array(tensor.doubles, dtype=np.float64)
    elif name == "uint64":
        values = np.array(tensor.unsigned_integers, dtype=np.uint64)
    else:
        values = np.array(tensor.integers, dtype=np.int64).astype(name)
    return values.reshape(tuple(tensor.shape))
