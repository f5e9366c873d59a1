"""What the operator's commands have in common: options, a client, errors as exit codes."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...base import exit_codes
from ...base.escaping import escaped
from .. import client_options

Command = Callable[[Any, argparse.Namespace], Awaitable[int]]
"""Called with a client and the options; gives the exit code."""

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d|)")


def command(commands: Any, name: str, run: Command, text: str) -> argparse.ArgumentParser:
    """Add a command that calls a server."""
    parser = bare_command(commands, name, text)
    parser.add_argument("--namespace", default="", help="whose keys (default: default; lists: all)")
    parser.set_defaults(run=lambda options: execute(run, options))
    return parser


def bare_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command with the options of a connection; its caller sets what it runs."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    connection_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


def connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a connection."""
    parser.add_argument(
        "--address", help="the server (default: HEADSTART_ADDRESS, else localhost:50051)"
    )
    client_options.add(parser)
    parser.add_argument(
        "--timeout",
        type=positive_duration,
        metavar="TIME",
        help="how long the server may take for an answer, beyond --wait (default: 5s)",
    )


def duration(text: str) -> float:
    """Seconds: a number, or one with a unit: 500ms, 2s, 5m, 1h, 7d.

    Raises argparse.ArgumentTypeError, which argparse tells together with the option.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: give seconds, or a number with ms, s, m, h or d"
        )
    return float(found[1]) * _UNITS[found[2]]


def positive_duration(text: str) -> float:
    """As `duration`, and more than nothing."""
    seconds = duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def complain(error: object) -> None:
    """One line on standard error."""
    print(f"headstart: {escaped(str(error))}", file=sys.stderr)


def code_of(error: Exception) -> int:
    """The exit code that an error of the client becomes."""
    import headstart

    match error:
        case headstart.NotFound():
            return exit_codes.NOT_FOUND
        case headstart.InvalidRequest() | ValueError() | TypeError():
            return exit_codes.WRONG_ARGUMENTS
        case headstart.ServiceUnavailable() | headstart.DeadlineExceeded() | TimeoutError():
            return exit_codes.UNAVAILABLE
        case headstart.Unauthenticated() | headstart.PermissionDenied():
            return exit_codes.REFUSED
        case headstart.ResourceExhausted():
            return exit_codes.NO_ROOM
    return exit_codes.FAILED


def execute(run: Command, options: argparse.Namespace) -> int:
    """Run a command with a client; return its exit code, also of the client's errors."""
    import headstart

    try:
        tls = client_options.tls_of(options)
        client_options.check_files(tls)
    except (headstart.ServiceUnavailable, ValueError) as error:
        complain(error)
        return exit_codes.WRONG_ARGUMENTS

    async def call() -> int:
        timeout = {} if options.timeout is None else {"timeout": options.timeout}
        async with headstart.PrecomputeClient(
            options.address,
            namespace=options.namespace,
            tls=tls,
            **timeout,
        ) as client:
            return await run(client, options)

    try:
        return asyncio.run(call())
    except (headstart.HeadstartError, ValueError, TimeoutError) as error:
        complain(_with_advice(error, options.address))
        return code_of(error)


def _with_advice(error: Exception, address: str | None) -> str:
    """What happened, and what to do: when to come back, or how to find out why."""
    import headstart

    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        return f"{error} (try again in {retry_after:.3g} s)"
    if isinstance(error, headstart.ServiceUnavailable):
        called = address or os.environ.get("HEADSTART_ADDRESS") or "localhost:50051"
        return f"cannot reach {called}: {error} (`headstart doctor` finds out why)"
    if isinstance(error, headstart.Unauthenticated) and not (
        os.environ.get("HEADSTART_TOKEN") or os.environ.get("HEADSTART_TOKEN_FILE")
    ):
        return f"{error} (set HEADSTART_TOKEN, or HEADSTART_TOKEN_FILE to the file that holds it)"
    return str(error)
