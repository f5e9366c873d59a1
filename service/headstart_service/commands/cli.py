"""The command line: arguments in, exit codes out; `exit_codes` has these."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..base import exit_codes
from ..base.extras import SERVER, install, listed
from . import (
    completion,
    operator,
    pipelines,
    token,
)
from .authoring import developing

SERVER_COMMANDS = (
    "serve",
    "worker",
    "model",
    "vocabulary",
    "check-config",
    "healthcheck",
    "repartition",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            options = parser_of(given).parse_args(given)
            code: int = options.run(options)
        finally:
            # Flush here, where errors are handled, rather than when Python ends.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does. Python must not report that
        # again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.DONE
    return code


class _Version(argparse.Action):
    """Prints the version. Imports the client only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print and exit with 0."""
        from headstart import __version__

        print(f"{parser.prog} {__version__}")
        parser.exit()


def parser_of(given: Sequence[str], *, whole: bool = False) -> argparse.ArgumentParser:
    """What parses these arguments; `whole`: what parses any."""
    parser = argparse.ArgumentParser(
        prog="headstart", description="Compute what a request will need while the user is busy."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first = given[0].partition("=")[0] if given else ""
    if first.startswith("--") and first not in ("--help", "--version"):
        parser.error(f"{first} stands before COMMAND: options stand after it")
    wanted = next((word for word in given if not word.startswith("-")), "")

    def server_command(name: str, text: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = commands.add_parser(name, **listed(text, SERVER))
        return found

    if not listed("", SERVER):
        parser.epilog = f"{', '.join((*SERVER_COMMANDS, 'completion'))}: {install('server')} first"
    serve = server_command("serve", "serve the gRPC API, with a worker beside it")
    worker = server_command("worker", "compute what API processes have queued")
    model = server_command("model", "prepare an embedding model for workers")
    vocabulary = server_command("vocabulary", "make the vocabulary of bridging games")
    check = server_command("check-config", "check the settings without starting")
    health = server_command("healthcheck", "exit 0 if a server serves, else 1")
    move = server_command("repartition", "move a store to another number of partitions")
    if whole or wanted in SERVER_COMMANDS:
        # The operator's commands stay free of packages that only a server has, and of slow
        # imports.
        try:
            from . import server
        except ImportError as error:
            parser.exit(
                exit_codes.WRONG_ARGUMENTS,
                f"headstart: {wanted} needs {error.name}, which is not installed: "
                f"{install('server')}, [worker] for a worker, or [all]\n",
            )
        server.add(serve, worker, model, vocabulary, check, health, move)
    operator.add(commands)
    pipelines.add(commands)
    developing.add(commands)
    token.add(commands)
    completion.add(commands, lambda: parser_of(given, whole=True))
    return parser
