"""Answers of ended runs, kept in this process so that reading them again asks no one.

An ended run never changes until it is started anew, evicted or expired. The store announces the
first two, and an answer knows when it expires. So an answer is kept only while announcements
arrive, and never if one about its run came while it was being read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
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
    """Answers, the most recently used ones, up to a number of bytes of memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[RunKey, _Entry] = OrderedDict()
        self._dropped = Recent()
        self._open = False
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
        return self._dropped.now

    def put(self, key: RunKey, answer: Answer, moment: int, began: float) -> None:
        """Keep what was read from that moment on, if its run has ended, until it expires.

        The read `began` at that time of the monotonic clock. Not kept if the run was dropped
        meanwhile: what was read may be from before.
        """
        if not (self._open and answer.final and answer.lives_for > 0):
            return
        size = len(answer.data) + OVERHEAD
        if size > self._max_bytes or self._dropped.since(key, moment):
            return
        self._remove(key)
        self._entries[key] = _Entry(answer, began + answer.lives_for)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def drop(self, key: RunKey) -> None:
        """Forget the answer of a run that was started anew or evicted."""
        self._remove(key)
        self._dropped.note(key)

    def open(self) -> None:
        """Announcements arrive from now on: answers may be kept."""
        self._open = True
        self._dropped.forget()

    def close(self) -> None:
        """Announcements may be missed from now on: forget everything, keep nothing."""
        self._open = False
        self._entries.clear()
        self._bytes = 0

    def _remove(self, key: RunKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.answer.data) + OVERHEAD
