"""The exit codes of every command; docs/cli.md has the table for users."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
FAILED: Final = 1
"""The command ran, and what it was for did not succeed; also any error that has no other code."""
WRONG_ARGUMENTS: Final = 2
"""Arguments, settings or a request break rules; nothing was done."""
NOT_FOUND: Final = 3
"""Nothing is kept under the key."""
UNAVAILABLE: Final = 4
"""No server answers, it cannot reach its store, or no answer came in time."""
REFUSED: Final = 5
"""The server did not accept the token, or the token does not grant the call."""
NO_ROOM: Final = 6
"""The server has no room for it now."""
INCOMPLETE: Final = 7
"""Asked with --complete, and some step has no result."""
BLOCKED: Final = 14
"""A worker's event loop stood still, and it has ended itself: the number of SIGALRM."""
INTERRUPTED: Final = 130
"""As shells say: 128 and SIGINT."""
