"""Partial results in Redis: what steps that stream have given so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from ..domain import Cursor, Cursors, PartialForm, PartialPiece, Partials, RunKey
from ..domain.errors import RunNotFound
from .batches import Reply
from .keys import PartitionKeys
from .partial_scripts import PartialScripts
from .script_loader import Batches

_MOST: Final = 1 << 20
"""Bytes that one call reads about at most: Redis serves no other client meanwhile."""
_FIELDS: Final = 6
"""Values of a piece in a reply of read_partials.lua."""


class PartialReader:
    """Reads partial results for an API process."""

    def __init__(
        self, batches: Batches, keys: Callable[[RunKey], PartitionKeys], process: str
    ) -> None:
        """Read the runs that have these `keys`; announcements go to the `process`."""
        self._scripts = PartialScripts(batches)
        self._keys = keys
        self._process = process

    async def read(self, key: RunKey, cursors: Cursors, *, follow: bool, tail: int = 0) -> Partials:
        """Return what a run's steps have given beyond the cursors, all of it.

        With a `tail` only so many of each step's last bytes. With `follow`, what they give from
        now on is announced. Raises RunNotFound.
        """
        found: dict[str, PartialPiece] = {}
        seen, run = dict(cursors), ""
        while True:
            arguments = [part for step, (made, at) in seen.items() for part in (step, made, at)]
            reply = await self._scripts.read_partials(
                self._keys(key),
                key,
                *arguments,
                process=self._process,
                follow=int(follow),
                most=_MOST,
                tail=tail,
            )
            if not reply:
                raise RunNotFound(key.namespace, key.key)
            if (read := reply[0].decode()) != run:
                run, found = read, {}
            for piece in _pieces(reply[1:]):
                found[piece.step] = _joined(found.get(piece.step), piece)
                seen[piece.step] = Cursor(piece.generation, piece.end)
            if all(piece.whole for piece in found.values()):
                return Partials(run, list(found.values()))


def _joined(before: PartialPiece | None, piece: PartialPiece) -> PartialPiece:
    """Return the piece, behind the one that the previous call has read."""
    if before is None or (before.generation, before.end) != (piece.generation, piece.offset):
        return piece
    return replace(piece, offset=before.offset, data=before.data + piece.data)


def _pieces(values: Sequence[Reply]) -> list[PartialPiece]:
    return [
        PartialPiece(
            step=step.decode(),
            form=PartialForm(form.decode()),
            generation=int(generation),
            offset=int(offset),
            data=data,
            length=int(length),
        )
        for step, form, generation, offset, length, data in zip(
            *(values[place::_FIELDS] for place in range(_FIELDS)), strict=True
        )
    ]


def parse_piece(what: str, data: bytes) -> PartialPiece:
    """Return the piece of an announcement: its description, and its bytes. Raises ValueError."""
    step, form, generation, offset, length, _ = what.split(",")
    return PartialPiece(step, PartialForm(form), int(generation), int(offset), data, int(length))
