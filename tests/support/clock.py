"""The clock of a server process, which tests set back and forth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HOUR = 3600


class Clock:
    """The clock of a server that runs under libfaketime."""

    def __init__(self, directory: Path) -> None:
        libraries = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
        if not libraries:
            pytest.skip("needs libfaketime: apt-get install faketime")
        self._file = directory / "faketime"
        self.set(0)
        self.environment = os.environ | {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Let it be so many seconds ahead of this machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.replace(self._file)
