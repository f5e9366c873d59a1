"""Notes which data files an author's code reads in this process, such as the JSON of a package."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ...base.file_changes import Fingerprint, fingerprint

_CODE: Final = (".py", ".pyc", ".pyi", ".so")
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class ReadFiles:
    """The files that were opened for reading and never for writing, as they were then."""

    def __init__(self, wanted: Callable[[Path], bool]) -> None:
        """Note from now on, for the life of this process, each file that is `wanted`.

        A file of code is none of them. What this process writes would change with each run.
        """
        self._wanted = wanted
        self._read: dict[Path, Fingerprint] = {}
        self._written: set[Path] = set()
        sys.addaudithook(self._notice)

    @property
    def seen(self) -> Mapping[Path, Fingerprint]:
        """How each was when it was opened first."""
        return {path: seen for path, seen in self._read.copy().items() if path not in self._written}

    def writes(self, path: Path) -> bool:
        """Return whether this process has opened the file for writing."""
        return path in self._written

    def _notice(self, event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            with suppress(ValueError, OSError):  # it is the opener's to raise
                self._note(Path(os.path.abspath(os.fsdecode(details[0]))), details[2])  # noqa: PTH100  # follows no links

    def _note(self, path: Path, flags: Any) -> None:
        if not isinstance(flags, int) or flags & os.O_DIRECTORY or path.suffix in _CODE:
            return
        if flags & _WRITES:
            self._written.add(path)
        elif path not in self._read and self._wanted(path) and not path.is_dir():
            self._read[path] = fingerprint([path])
