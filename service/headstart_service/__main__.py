"""`headstart` and `python -m headstart_service`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # Read once, when gRPC is loaded. Each child here is a new program, which needs none of gRPC's
    # handlers for forks; they would log that they cannot run while an exporter's thread is in gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    try:
        from .cli import main as run

        code = run()
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
