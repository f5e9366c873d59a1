"""A file that operators may change while a process runs; a mistake leaves the last good one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from ..base.file_changes import fingerprint
from ..domain.errors import StartupError

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the file."""

Content = TypeVar("Content")


class ReloadedFile(Generic[Content]):
    """The file, and what it held when it was last right."""

    def __init__(self, path: Path, read: Callable[[Path], Content], what: str) -> None:
        """Read it. `read` raises StartupError for what is wrong; log lines call it `what`."""
        self._path = path
        self._read = read
        self._what = what
        self._seen = fingerprint([path])
        self.refusals = 0
        """How often what was new could not be read."""
        self.content = read(path)

    async def watch(self) -> None:
        """Read it again whenever it changes, for ever; what is wrong leaves the last good one."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Read it again if it has changed."""
        seen = fingerprint([self._path])
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.content = self._read(self._path)
        except StartupError as error:
            self.refusals += 1
            log.error("the %s that were read before stay in force: %s", self._what, error)  # noqa: TRY400  # no news in the trace
        else:
            log.info("%s read from %s", self._what, self._path)


def text_of(path: Path, setting: str) -> str:
    """Return the file's text. Raises StartupError that names `setting` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StartupError(f"{setting}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartupError(f"{setting}: {path} is not UTF-8 text") from None
