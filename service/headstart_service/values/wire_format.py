"""Fields of a message written by hand, from what has their bytes already.

A vector's own bytes as a packed field take 0.6 µs for 384 floats instead of 100 µs. They are byte
for byte what protobuf's own encoder writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH_DELIMITED = 2
"""The wire type of strings, messages and packed numbers:
https://protobuf.dev/programming-guides/encoding/#structure"""
_MORE = 0x80
"""The bit of a varint's byte that announces seven more bits."""


def packed(array: NDArray[Any], kind: str) -> bytes:
    """The payload of a packed field of fixed-width numbers, such as `<f4`, in row-major order."""
    # The wire is little-endian whatever the machine is; on those that are, this copies once.
    return array.astype(kind, copy=False).tobytes()


def field(number: int, payload: bytes, *, always: bool = False) -> bytes:
    """A length-delimited field. Like protobuf's encoder leave out an empty one, if not `always`."""
    if not payload and not always:
        return b""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(payload)) + payload


def strings(number: int, texts: Iterable[str]) -> bytes:
    """A repeated string field."""
    return b"".join(field(number, text.encode(), always=True) for text in texts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= _MORE:
        out.append(number % _MORE | _MORE)
        number //= _MORE
    out.append(number)
    return bytes(out)
