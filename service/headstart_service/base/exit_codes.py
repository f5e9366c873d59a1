"""The exit codes of every command; `make docs` writes them into docs/cli.md."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""Done. `get`: an answer came; `watch`, `pipelines run`: the run completed; `doctor`: no check
FAILs; with `--strict`: none WARNs either."""
FAILED: Final = 1
"""A server's error, a failed or cancelled run (`watch`, `pipelines run`), a failed line
(`start --file`), a FAIL or strict WARN (`doctor`). No server (`healthcheck`), live processes
(`repartition`), a mistake (`pipelines …`)."""
WRONG_ARGUMENTS: Final = 2
"""Wrong arguments, settings, request or client files; nothing was done."""
NOT_FOUND: Final = 3
"""Nothing is kept under the key."""
UNAVAILABLE: Final = 4
"""No server, no store, or no answer within `--timeout`."""
REFUSED: Final = 5
"""The token was refused, or does not grant this."""
NO_ROOM: Final = 6
"""The server has no room now; the message has the delay."""
INCOMPLETE: Final = 7
"""With `--complete`: a step has no result."""
BLOCKED: Final = 14
"""`worker`: a step blocked its event loop, and it ended itself, by the number of SIGALRM."""
INTERRUPTED: Final = 130
"""Interrupted by Ctrl-C: 128 and SIGINT, as in shells."""
