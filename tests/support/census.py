"""Counts the asyncio tasks of a server from outside: loaded by it as a pipeline, it answers SIGUSR2."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.support.pipelines import NOOP
from tests.support.waiting import wait_until

DIRECTORY = "TEST_CENSUS"
"""The environment variable that says where the answers go: one file for each process."""


def _answer(*_: object) -> None:
    # A handler runs between two bytecodes of the main thread, which is the loop's.
    count = len(asyncio.all_tasks())
    place = Path(os.environ[DIRECTORY]) / str(os.getpid())
    place.with_suffix(".new").write_text(str(count))
    place.with_suffix(".new").rename(place)


if DIRECTORY in os.environ:
    signal.signal(signal.SIGUSR2, _answer)

CENSUS = NOOP
"""Something to load; it was loaded already, and is the same."""


async def tasks_of(pid: int, directory: Path) -> int:
    """How many tasks a process has now: it is asked, and its answer awaited."""
    place = directory / str(pid)
    place.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    await wait_until(place.exists)
    return int(place.read_text())
