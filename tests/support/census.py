"""Counts the asyncio tasks of a server from outside: loaded by it as a pipeline, it answers SIGUSR2."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.support.pipelines import NOOP

DIRECTORY = "TEST_CENSUS"
"""The environment variable that says where the answers go: one file for each process."""


def _answer(*_: object) -> None:
    # A handler runs between two bytecodes of the main thread, which is the loop's.
    count = len(asyncio.tasks._all_tasks)  # type: ignore[attr-defined]
    place = Path(os.environ[DIRECTORY]) / str(os.getpid())
    place.with_suffix(".new").write_text(str(count))
    place.with_suffix(".new").rename(place)


if DIRECTORY in os.environ:
    signal.signal(signal.SIGUSR2, _answer)

CENSUS = NOOP
"""Something to load; it was loaded already, and is the same."""


def tasks_of(pid: int, directory: Path) -> int:
    """What a process answered last, after asking it once more; 0 before it ever did."""
    os.kill(pid, signal.SIGUSR2)
    place = directory / str(pid)
    return int(place.read_text()) if place.exists() else 0
