"""The lines of `unsettled`, read once more so that a slip in _accounting.lua shows."""

from __future__ import annotations


def numbers_of(line: bytes) -> list[int]:
    """Numbers of seven bits a byte, the lowest first; the last byte of each is below 128."""
    numbers = [0]
    shift = 0
    for byte in line:
        numbers[-1] |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(0)
            shift = 0
    assert numbers.pop() == 0
    return numbers


def open_steps(line: bytes) -> int:
    """How many steps' work is in it."""
    _, *steps = numbers_of(line)
    assert len(steps) % 4 == 0
    return len(steps) // 4
