"""What a step that streams has given so far: a partial result, of which callers read the growth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

_CONTINUES: Final = 0xC0
"""A byte inside a character of UTF-8 has `_INSIDE` in these bits."""
_INSIDE: Final = 0x80
_LINE_END: Final = b"\n"


class PartialForm(StrEnum):
    """What a step yields. Its bytes are kept as UTF-8."""

    TEXT = "text"
    LINES = "lines"
    """Items, each the text of one JSON value and a line's end."""

    def cut(self, data: bytes, most: int) -> int:
        """Return how many bytes of `data` form whole characters or lines: at most `most`.

        A line that is longer by itself stays whole, and 0 is returned if `data` does not have all
        of it.
        """
        if self is PartialForm.LINES:
            end = data.rfind(_LINE_END, 0, most) + 1
            return end or data.find(_LINE_END, most) + 1
        if len(data) > most:
            while most and data[most] & _CONTINUES == _INSIDE:
                most -= 1
            return most
        return len(data)


class Cursor(NamedTuple):
    """Up to where a caller has a step's partial result."""

    generation: int = 0
    offset: int = 0
    """In bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class PartialPiece:
    """A part of a step's partial result."""

    step: str
    form: PartialForm
    generation: int
    """Greater for each beginning of the step: a new try gives everything anew."""
    offset: int
    """The bytes of the generation before it."""
    data: bytes
    length: int
    """The bytes that the generation had when this was read or announced: more if `data` stops
    before its end, as a large announcement's does."""

    @property
    def end(self) -> int:
        """The bytes of the generation up to its end."""
        return self.offset + len(self.data)

    @property
    def whole(self) -> bool:
        """Whether nothing follows it yet."""
        return self.end >= self.length


@dataclass(frozen=True, slots=True)
class Partials:
    """What was read of a run's partial results, at one moment."""

    run: str
    """The run's id."""
    pieces: Sequence[PartialPiece]
    """Of the steps that have given something beyond the reader's cursors, or begun anew."""


@dataclass(frozen=True, slots=True)
class PartialWrite:
    """What a worker adds to a step's partial result."""

    step: str
    form: PartialForm
    trial: int
    """Greater for each try of a process: a later one makes earlier ones void."""
    offset: int
    """The bytes of this try that the store has already."""
    data: bytes


Cursors = Mapping[str, Cursor]
