"""Bytes that are nearly, or not at all, what they should be."""

from __future__ import annotations

import random
from collections.abc import Callable

_TAGS = range(1, 20)
_WIRE_TYPES = range(8)


def varint(value: int) -> bytes:
    """As protobuf writes it."""
    encoded = bytearray()
    while value >= 1 << 7:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """`data` after one to four mutations."""
    for _ in range(dice.randint(1, 4)):
        data = dice.choice(_MUTATIONS)(data, dice)
    return data


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def _flip(data: bytes, dice: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    new = dice.randbytes(dice.randint(1, 8))
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.randbytes(dice.randint(1, 8)) + data[at:]


def _repeat(data: bytes, dice: random.Random) -> bytes:
    first = dice.randint(0, len(data))
    piece = data[first : first + dice.randint(0, 40)]
    return data + piece * dice.choice((1, 2, 30))


def _random(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((1, 2, 10, 100, 1000)))


def _unknown_field(data: bytes, dice: random.Random) -> bytes:
    number = dice.choice((*_TAGS, 1000, 2**29 - 1, 0, 2**29))
    return data + varint(number << 3 | dice.choice(_WIRE_TYPES)) + dice.randbytes(4)


def _wrong_wire_type(data: bytes, dice: random.Random) -> bytes:
    return bytes([dice.choice(_TAGS) << 3 | dice.choice(_WIRE_TYPES)]) + data


def _length_beyond_the_end(data: bytes, dice: random.Random) -> bytes:
    length = dice.choice((len(data) + 1, 2**31 - 1, 2**32, 2**63, 2**64 - 1))
    return varint(dice.choice(_TAGS) << 3 | 2) + varint(length) + data


def _overlong_varint(data: bytes, dice: random.Random) -> bytes:
    return data + varint(dice.choice(_TAGS) << 3) + b"\xff" * dice.randint(9, 12) + b"\x01"


def _nested(data: bytes, dice: random.Random) -> bytes:
    number = dice.choice(_TAGS)
    for _ in range(dice.choice((5, 110, 300))):
        data = varint(number << 3 | 2) + varint(len(data)) + data
    return data


def _groups(data: bytes, dice: random.Random) -> bytes:
    number, depth = dice.choice(_TAGS), dice.choice((1, 50, 5000))
    ends = varint(number << 3 | 4) * dice.choice((0, depth))
    return data + varint(number << 3 | 3) * depth + ends


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_cut, _flip, _flip, _overwrite, _insert, _repeat, _random, _unknown_field),
    *(_wrong_wire_type, _length_beyond_the_end, _overlong_varint, _nested, _groups),
)
