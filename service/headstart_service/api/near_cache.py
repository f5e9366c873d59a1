"""Answers of ended runs, kept in this process so that reading them again asks no one.

An ended run never changes until it is started anew, evicted or expired. The store announces the
first two, and an answer knows when it expires; so an answer is kept only while announcements
arrive, and never if one about its run came while it was being read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..domain import RunKey
from .answer import Answer

_OVERHEAD = 1024
"""What an answer takes besides its data, so that many small ones are bounded too."""


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    expires: float


@dataclass(slots=True)
class Reading:
    """A read under way; it becomes stale when something is announced about its run."""

    key: RunKey
    stale: bool = False


class NearCache:
    """Answers, the most recently used ones, up to a number of bytes of memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[RunKey, _Entry] = OrderedDict()
        self._readings: dict[RunKey, list[Reading]] = {}
        self._open = False

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: RunKey, min_revision: int) -> Answer | None:
        """The answer kept for `key`, if it is still good."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= time.monotonic():
            self._remove(key)
            return None
        if entry.answer.revision < min_revision:
            return None
        self._entries.move_to_end(key)
        return entry.answer

    @contextmanager
    def reading(self, key: RunKey) -> Iterator[Reading]:
        """Watch over a read, so that `put` can tell whether its answer is still good."""
        reading = Reading(key, stale=not self._open)
        self._readings.setdefault(key, []).append(reading)
        try:
            yield reading
        finally:
            # By identity: two readings of one key are equal.
            left = [other for other in self._readings[key] if other is not reading]
            if left:
                self._readings[key] = left
            else:
                del self._readings[key]

    def put(self, reading: Reading, answer: Answer) -> None:
        """Keep what was read, if its run has ended, until it expires."""
        size = len(answer.data) + _OVERHEAD
        if reading.stale or not answer.final or size > self._max_bytes or answer.lives_for <= 0:
            return
        self._remove(reading.key)
        self._entries[reading.key] = _Entry(answer, time.monotonic() + answer.lives_for)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def drop(self, key: RunKey) -> None:
        """Forget the answer of a run that was started anew or evicted."""
        self._remove(key)
        for reading in self._readings.get(key, ()):
            reading.stale = True

    def open(self) -> None:
        """Announcements arrive from now on: answers may be kept."""
        self._open = True

    def close(self) -> None:
        """Announcements may be missed from now on: forget everything, keep nothing."""
        self._open = False
        self._entries.clear()
        self._bytes = 0
        for readings in self._readings.values():
            for reading in readings:
                reading.stale = True

    def _remove(self, key: RunKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.answer.data) + _OVERHEAD
