"""Reports changes of files that a connection uses: TLS files and tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PAUSE: Final = 1.0
"""Seconds between two reads. Each call asks, on the event loop, and a network disk may be slow."""

FileStates = tuple[tuple[int, int, int, int] | None, ...]
"""A value for each file that differs once the file has changed; None for a missing file."""


class FileChanges:
    """Reads the states of files, at most once a second."""

    def __init__(
        self, *paths: str | os.PathLike[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep the paths; nothing is read yet. `clock` returns seconds."""
        self._paths = paths
        self._clock = clock
        self._states: FileStates = ()
        self._next_read = 0.0

    def states(self) -> FileStates:
        """Return the files' states, as of the last second."""
        now = self._clock()
        if not self._states or now >= self._next_read:
            self._states = tuple(map(_state, self._paths))
            self._next_read = now + PAUSE
        return self._states


def _state(path: str | os.PathLike[str]) -> tuple[int, int, int, int] | None:
    try:
        now = Path(path).stat()
    except OSError:
        return None
    # The last field changes with the rights to read the file, too.
    return now.st_mtime_ns, now.st_size, now.st_ino, now.st_ctime_ns
