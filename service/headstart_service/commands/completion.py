"""`headstart completion`: prints what makes a shell complete commands and options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final

from ..base import exit_codes
from ..base.extras import install, listed

SHELLS: Final = ("bash", "zsh", "fish")


def add(commands: Any, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the command to the parser's subcommands; `whole` gives the parser of all of them."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion",
        **listed("print a script that completes commands and options in a shell", ("shtab",)),
        description="Print a script for a shell. "
        "bash: headstart completion bash > ~/.local/share/bash-completion/completions/headstart; "
        "zsh: into _headstart in a directory of $fpath; "
        "fish: into ~/.config/fish/completions/headstart.fish.",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=lambda options: _run(options, whole))


def _run(options: argparse.Namespace, whole: Callable[[], argparse.ArgumentParser]) -> int:
    try:
        import shtab
    except ImportError:
        print(
            f"headstart: completion needs shtab, which is not installed: {install('server')}",
            file=sys.stderr,
        )
        return exit_codes.FAILED
    print(shtab.complete(whole(), options.shell))
    return exit_codes.DONE
