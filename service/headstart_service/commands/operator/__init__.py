"""The operator's commands, on any server: start, get, watch, list, cancel, stats, doctor and more.

They use the light client alone, so they start fast and run wherever it is installed.
"""

from __future__ import annotations

from typing import Any

from ..doctor import command
from . import listings, runs, watch


def add(commands: Any) -> None:
    """Add every command to the parser's subcommands."""
    runs.add(commands)
    watch.add(commands)
    listings.add(commands)
    command.add(commands)
