"""One process at a time in a directory, and files that are on the disk."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..domain.errors import StartupError

_LOCK = ".lock"

_log = logging.getLogger(__name__)


@contextmanager
def exclusive(directory: Path, what: str) -> Iterator[None]:
    """Be the only process that builds in `directory`; the lock ends with the process.

    `what` names its content in errors. Raises StartupError when the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _LOCK).open("w")
    except OSError as error:
        raise StartupError(
            f"cannot write the {what}'s directory {directory}: {error.strerror}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that builds in %s", directory)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def sync(path: Path) -> None:
    """Write a file or a directory through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
