"""Answers of ended runs, kept in this process so that reading them again asks no one.

An ended run never changes until it is started anew, evicted or expired. The store announces the
first two, and an answer knows when it expires. So an answer is kept only while announcements
arrive, and never if one about its run came while it was being read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ...domain import RunKey
from .answer import Answer
from .recent_changes import Recent

OVERHEAD = 1024
"""What an answer takes besides its data, so that many small ones are bounded too."""


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    expires: float


class NearCache:
    """Answers, the most recently used ones, up to a number of bytes of memory.

    Announcements may arrive for some sections of the runs, and for others not.
    """

    def __init__(self, max_bytes: int, section: Callable[[RunKey], int] = lambda _: 0) -> None:
        """`section` returns the section of a run."""
        self._max_bytes = max_bytes
        self._section = section
        self._bytes = 0
        self._entries: OrderedDict[RunKey, _Entry] = OrderedDict()
        self._recent = Recent()
        self._open: set[int] = set()
        self.hits = 0
        """How often an answer was given."""
        self.misses = 0
        """Lookups without an answer. The reader counts them, because each call makes two."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: RunKey) -> Answer | None:
        """The answer kept for `key`, if it is still good."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= time.monotonic():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry.answer

    def keeps_other(self, key: RunKey, run: str) -> bool:
        """Whether the answer kept for `key` is that of another run."""
        entry = self._entries.get(key)
        return entry is not None and entry.answer.run != run

    @property
    def size(self) -> int:
        """Bytes that its answers take."""
        return self._bytes

    @property
    def moment(self) -> int:
        """To be taken before a read whose answer is put."""
        return self._recent.now

    def put(self, key: RunKey, answer: Answer, moment: int, began: float) -> None:
        """Keep what was read from that moment on, if its run has ended, until it expires.

        The read `began` at that time of the monotonic clock. Not kept if the run was dropped
        meanwhile: what was read may be from before.
        """
        if not (answer.final and answer.lives_for > 0) or self._section(key) not in self._open:
            return
        size = len(answer.data) + OVERHEAD
        if size > self._max_bytes or self._recent.since(key, moment, answer.run):
            return
        self._remove(key)
        self._entries[key] = _Entry(answer, began + answer.lives_for)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def note_read(self, key: RunKey, run: str, moment: int) -> None:
        """Forget the answers of other runs of this key: a read that began then returned this one.

        Its announcement, or that of an earlier run's end, may arrive later.
        """
        if not self._recent.note_read(key, run, moment):
            self.drop(key)
        elif self.keeps_other(key, run):
            self._remove(key)

    def drop(self, key: RunKey) -> None:
        """Forget the answer of a run that was started anew or evicted."""
        self._remove(key)
        self._recent.note(key)

    def open(self, section: int = 0) -> None:
        """Announcements of this section arrive from now on: its answers may be kept."""
        self._open.add(section)
        self._recent.forget()

    def close(self, section: int = 0) -> None:
        """Announcements of this section may be missed from now on: forget and keep none of it."""
        self._open.discard(section)
        for key in [key for key in self._entries if self._section(key) == section]:
            self._remove(key)

    def close_all(self) -> None:
        """Forget everything, keep nothing."""
        self._open.clear()
        self._entries.clear()
        self._bytes = 0

    def _remove(self, key: RunKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.answer.data) + OVERHEAD
