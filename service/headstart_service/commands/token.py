"""`headstart token`: makes a token, and the line that lets it in."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from ..base import exit_codes


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    text = "make a token: its line for the file HEADSTART_TOKENS goes to standard output"
    parser: argparse.ArgumentParser = commands.add_parser(
        "token",
        help="make a token that lets a caller in",
        description=f"{text}, the token itself, this once, to standard error.",
    )
    parser.add_argument("name", help="its name, which logs and refusals show")
    parser.add_argument(
        "--namespaces",
        default="default",
        help="its namespaces, with commas between, or * (default: default)",
    )
    parser.add_argument(
        "--verbs",
        default="read,write",
        help="of read, write, metrics (with --namespaces '*': /metrics alone) and admin, which "
        "allows everything; or sign: a key for tokens of one run (default: read,write)",
    )
    parser.add_argument("--json", action="store_true", help="print both as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..auth.token_file import SIGN, line_of, new_key_line, new_token

    if options.verbs == SIGN:
        return _key(options, new_key_line)
    token = new_token()
    try:
        line = line_of(options.name, token, options.namespaces.split(","), options.verbs.split(","))
    except ValueError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return exit_codes.WRONG_ARGUMENTS
    if options.json:
        print(json.dumps({"token": token, "line": line}))
        return exit_codes.DONE
    print(line, flush=True)
    print(f"The token, which is shown this once: {token}", file=sys.stderr)
    return exit_codes.DONE


def _key(options: argparse.Namespace, new_line: Callable[[str], str]) -> int:
    """Print the line of a key, which no caller may see: it holds the key itself, not a digest."""
    try:
        line = new_line(options.name)
    except ValueError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return exit_codes.WRONG_ARGUMENTS
    print(json.dumps({"line": line}) if options.json else line, flush=True)
    note = "every reader of the file can make tokens for one run. Keep it private."
    print(f"This line is a secret: {note}", file=sys.stderr)
    return exit_codes.DONE
