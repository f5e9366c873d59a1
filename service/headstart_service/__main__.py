"""`headstart` and `python -m headstart_service`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from .cli import main as run

        code = run()
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
