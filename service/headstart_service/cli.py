"""The command line: arguments in, exit codes out.

Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 3 nothing is kept under the key.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import operate, token_command

_INTERRUPTED = 130  # as shells say: 128 and SIGINT
SERVER_COMMANDS = ("serve", "worker", "vocabulary", "check-config", "healthcheck")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(given)
    options = parser.parse_args(given)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` does. Python must not complain about
        # it once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart", description="Compute what a request will need while the user is busy."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    wanted = next((word for word in given if not word.startswith("-")), "")
    serve = commands.add_parser("serve", help="serve the gRPC API, with a worker beside it")
    worker = commands.add_parser("worker", help="compute what API processes have queued")
    vocabulary = commands.add_parser("vocabulary", help="make the vocabulary of bridging games")
    check = commands.add_parser("check-config", help="check the settings without starting")
    health = commands.add_parser("healthcheck", help="exit 0 if a server serves, else 1")
    if wanted in SERVER_COMMANDS:
        # What only a server has installed, and what makes a command slow to start, stays out of
        # the operator's commands.
        try:
            from . import server_commands
        except ImportError as error:
            parser.error(
                f"{wanted} needs {error.name}, which is not installed: "
                "pip install 'headstart[server]', [worker] for a worker, or [all]"
            )
        server_commands.add(serve, worker, vocabulary, check, health)
    operate.add(commands)
    token_command.add(commands)
    return parser
