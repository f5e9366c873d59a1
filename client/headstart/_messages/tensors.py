"""Arrays of numbers as callers get them, and the rules of a tensor's fields.

Imports nothing of the client but names' suggestions, because the service uses it too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headstart._errors.suggestions import not_one_of

_CODES: Final[Mapping[str, str]] = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "complex64": "ff",
    "complex128": "dd",
}
"""Each type that a tensor can have, by numpy's name, as `struct` writes it."""
DTYPES: Final = frozenset(_CODES)
_MOST_DIMENSIONS: Final = 64
"""As many as numpy's arrays have."""
_MOST_BYTES: Final = 2**63 - 1


class TensorError(ValueError):
    """Fields that make no tensor: `rule` is what `field` breaks."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An array of numbers; `numpy.asarray(tensor)` makes it numpy's, without a copy.

    Raises ValueError that names the wrong field.
    """

    dtype: str
    """Numpy's name of the values' type, such as `float32` or `int64`."""
    shape: tuple[int, ...]
    data: bytes = field(repr=False)
    """The values in row-major order, each little-endian."""

    def __post_init__(self) -> None:
        if self.dtype not in _CODES:
            raise TensorError("dtype", not_one_of(self.dtype, _CODES))
        if len(self.shape) > _MOST_DIMENSIONS:
            rule = f"must have at most {_MOST_DIMENSIONS} dimensions, has {len(self.shape)}"
            raise TensorError("shape", rule)
        size = most = struct.calcsize(f"<{_CODES[self.dtype]}")
        for length in self.shape:
            if length < 0:
                raise TensorError("shape", f"must have lengths of 0 or more, has {length}")
            size, most = size * length, most * max(length, 1)
            if most > _MOST_BYTES:
                raise TensorError("shape", "must mean at most 2^63 - 1 bytes")
        if len(self.data) != size:
            shape = ", ".join(map(str, self.shape))
            rule = f"must be {size} bytes, for {self.dtype} of shape [{shape}], is {len(self.data)}"
            raise TensorError("data", rule)
        if self.dtype == "bool" and self.data.translate(None, b"\0\1"):
            raise TensorError("data", "must be bytes of 0 or 1, for bool")

    @classmethod
    def of(
        cls, values: Iterable[Any], dtype: str = "float32", shape: Iterable[int] | None = None
    ) -> Tensor:
        """Make a tensor of numbers in row-major order; by default it has one dimension.

        Raises ValueError for numbers that the type cannot hold.
        """
        numbers, code = list(values), _CODES.get(dtype, "d")
        lengths = (len(numbers),) if shape is None else tuple(shape)
        if code in ("ff", "dd"):
            numbers = [part for each in map(complex, numbers) for part in (each.real, each.imag)]
        try:
            data = struct.pack(f"<{len(numbers)}{code[0]}", *numbers)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"values: must be of {dtype}: {error}") from None
        return cls(dtype=dtype, shape=lengths, data=data)

    @property
    def values(self) -> tuple[Any, ...]:
        """Return the numbers as Python's, in row-major order."""
        code = _CODES[self.dtype]
        count = len(self.data) // struct.calcsize(f"<{code[0]}")
        numbers = struct.unpack(f"<{count}{code[0]}", self.data)
        return numbers if len(code) == 1 else tuple(map(complex, numbers[::2], numbers[1::2]))

    def to_numpy(self) -> Any:
        """Return a read-only array of the same bytes. Raises ImportError without numpy."""
        import numpy as np

        kind = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(self.data, dtype=kind).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # noqa: FBT001  # numpy's signature
        import numpy as np

        return np.array(self.to_numpy(), dtype=dtype, copy=copy)
