"""Watchers that follow what steps give before they end, each from its own cursors on.

An announcement carries what is new. A follower passes it on if it continues what its watcher has.
In any doubt, such as a gap or a lost subscription, it reads from its cursors on. So it keeps no
text, and nothing is repeated or missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import Announcement, Cursor, Cursors, PartialForm, PartialPiece, RunKey
from ...domain.errors import RunNotFound
from ...domain.run_store import RunStore

_MOST: Final = 256 * 1024
"""Bytes that wait for a slow watcher; what is beyond is read from the store later."""


def partial_result(piece: PartialPiece, *, restarted: bool) -> pb.PartialResult:
    """Return a piece as callers get it."""
    text = piece.data.decode(errors="replace")
    lines = piece.form is PartialForm.LINES
    return pb.PartialResult(
        step=piece.step,
        generation=piece.generation,
        offset=piece.offset,
        next_offset=piece.end,
        text="" if lines else text,
        json_lines=text.split("\n")[:-1] if lines else (),
        restarted=restarted,
    )


async def partials_of(
    store: RunStore, key: RunKey, run: str, cursors: Cursors, steps: Collection[str]
) -> list[pb.PartialResult]:
    """Return what this run's steps have given beyond the cursors; without `steps`, of all."""
    try:
        read = await store.read_partials(key, cursors, follow=False)
    except RunNotFound:
        return []
    return [
        partial_result(piece, restarted=_restarts(cursors.get(piece.step), piece))
        for piece in read.pieces
        if read.run == run and (not steps or piece.step in steps)
    ]


def _restarts(cursor: Cursor | None, piece: PartialPiece) -> bool:
    """Whether the piece makes void what its reader has."""
    return cursor is not None and cursor.generation not in (0, piece.generation)


class Follower:
    """One watcher of a run's partial results."""

    def __init__(
        self, store: RunStore, key: RunKey, cursors: Cursors, steps: Collection[str]
    ) -> None:
        self._store = store
        self._key = key
        self._steps = steps
        self._sent = dict(cursors)
        """Up to where the watcher has them."""
        self._seen = dict(cursors)
        """The same, with what waits for it."""
        self._waiting: list[pb.PartialResult] = []
        self._size = 0
        self._doubt = True
        self._meanwhile: list[Announcement] | None = None
        """What was announced during a read."""
        self.run = ""
        """The id of the run that was read last."""
        self.news = asyncio.Event()
        """Set whenever `take` may have something."""

    def doubt(self) -> None:
        """Read before anything else is passed on."""
        self._doubt = True
        self.news.set()

    def receive(self, announcement: Announcement) -> None:
        """Note what a step has given."""
        piece = announcement.piece
        if piece is None or (self._steps and piece.step not in self._steps):
            return
        if self._meanwhile is not None:
            self._meanwhile.append(announcement)
        elif not self._doubt:
            self._doubt = announcement.run != self.run or not self._continue(piece)
            self.news.set()

    async def take(self) -> list[pb.PartialResult]:
        """Return what is new to the watcher. Raises StoreUnavailable."""
        while self._doubt:
            await self._read()
        taken, self._waiting, self._size = self._waiting, [], 0
        self._sent = dict(self._seen)
        return taken

    async def _read(self) -> None:
        self._meanwhile, self._waiting, self._size = [], [], 0
        self._seen = dict(self._sent)
        try:
            read = await self._store.read_partials(self._key, self._seen, follow=True)
        except RunNotFound:
            self._doubt = False  # the watch ends with the same error
            return
        finally:
            meanwhile, self._meanwhile = self._meanwhile, None
        self._doubt, self.run = False, read.run
        for piece in read.pieces:
            if not self._steps or piece.step in self._steps:
                self._keep(piece)
        for announcement in meanwhile:
            self.receive(announcement)

    def _continue(self, piece: PartialPiece) -> bool:
        """Keep a piece that was announced; return whether it fits what is there."""
        seen = self._seen.get(piece.step, Cursor())
        if (piece.generation, piece.length) <= seen:
            return True  # a read was faster
        same = piece.generation == seen.generation
        if not piece.whole or piece.offset != (seen.offset if same else 0) or self._size > _MOST:
            return False
        self._keep(piece)
        return True

    def _keep(self, piece: PartialPiece) -> None:
        restarted = _restarts(self._seen.get(piece.step), piece)
        self._seen[piece.step] = Cursor(piece.generation, piece.end)
        self._size += len(piece.data)
        made = partial_result(piece, restarted=restarted)
        last = self._waiting[-1] if self._waiting else None
        if last is not None and not restarted and last.step == made.step:
            last.text += made.text
            last.json_lines.extend(made.json_lines)
            last.next_offset = made.next_offset
        else:
            self._waiting.append(made)


class Followers:
    """The followers of all runs."""

    def __init__(self) -> None:
        self._followers: dict[RunKey, set[Follower]] = {}

    @contextmanager
    def following(self, follower: Follower, key: RunKey) -> Iterator[None]:
        """Let announcements of the run reach the follower while the context is open."""
        self._followers.setdefault(key, set()).add(follower)
        try:
            yield
        finally:
            left = self._followers[key]
            left.discard(follower)
            if not left:
                del self._followers[key]

    def receive(self, announcement: Announcement) -> None:
        """Pass on what a step has given."""
        for follower in self._followers.get(announcement.key, ()):
            follower.receive(announcement)

    def doubt(self, key: RunKey) -> None:
        """Have the run's followers read: something may not have been announced here."""
        for follower in self._followers.get(key, ()):
            follower.doubt()
