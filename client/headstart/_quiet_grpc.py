"""Loads gRPC with its errors alone on standard error, unless the application chooses a level.

gRPC's core writes a line of level INFO for each failed TLS handshake: one a second, for as long as
a server's certificate is wrong. The error of each call has the same reason. The core reads one
level for the process, once, from the environment. So this concerns every use of gRPC in it. What
decides, in this order:

- an application that loads gRPC first;
- GRPC_VERBOSITY, which `INFO` makes as talkative as it was;
- this module. It changes neither errors, nor Python's logging, nor the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_LEVEL: Final = "GRPC_VERBOSITY"


def load() -> None:
    """Load gRPC; let it write errors alone, unless the application has chosen otherwise."""
    if "grpc" in sys.modules or _LEVEL in os.environ:
        return
    os.environ[_LEVEL] = "ERROR"
    try:
        import grpc  # noqa: F401  # not before the level is set
    finally:
        os.environ.pop(_LEVEL, None)


load()
