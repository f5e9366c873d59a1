"""`headstart pipelines generate`: reads pipelines from a server or a package, writes a module."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...base import exit_codes
from ...base.escaping import escaped
from ...base.extras import install
from ..declared_pipelines import complain, declared, references, report
from ..operator.execution import connection_options, execute

if TYPE_CHECKING:
    from headstart import PipelineDescription

_BRIDGING: Final = "bridging"
"""The clients have typed methods for it."""


def add(actions: Any) -> None:
    """Add the action to the command `pipelines`."""
    # Without defaults of its own, options may stand on either side of `generate`.
    parser: argparse.ArgumentParser = actions.add_parser(
        "generate",
        argument_default=argparse.SUPPRESS,
        help="write a typed module that starts and reads pipelines",
        description="Write a module with functions that start and read each pipeline, with the "
        "types of its inputs and results. It asks the server, or reads a package.",
    )
    parser.add_argument(
        "pipelines",
        nargs="*",
        default=[],
        metavar="PIPELINE",
        help="only these (default: all but bridging, which the clients have methods for)",
    )
    language = parser.add_mutually_exclusive_group(required=True)
    language.add_argument(
        "--python", dest="language", action="store_const", const="python", help="write Python"
    )
    language.add_argument(
        "--typescript",
        dest="language",
        action="store_const",
        const="typescript",
        help="write TypeScript, for any client with start and getResults",
    )
    parser.add_argument(
        "--blocking",
        action="store_true",
        default=False,
        help="for BlockingClient rather than PrecomputeClient",
    )
    parser.add_argument(
        "--from",
        dest="packages",
        action="append",
        default=[],
        metavar="MODULE:NAME | DISTRIBUTION",
        help="read this instead of asking a server; may be given several times",
    )
    parser.add_argument(
        "--out", default="", metavar="FILE", help="where to write (default: standard output)"
    )
    connection_options(parser)
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    if options.blocking and options.language != "python":
        return complain("--blocking is for --python alone")
    if not options.packages:
        return execute(_from_server, options)
    from headstart._for_service import pipeline_from

    try:
        from ...api.messages import pipeline_description

        pipelines, mistakes = declared(references(options.packages))
    except ImportError as error:
        return complain(f"--from needs {error.name}: {install('server')}")
    except ValueError as error:
        return complain(str(error))
    if mistakes:
        report(mistakes)
        return exit_codes.FAILED
    return _write([pipeline_from(pipeline_description(each)) for each in pipelines], options)


async def _from_server(client: Any, options: argparse.Namespace) -> int:
    return _write(await client.list_pipelines(), options)


def _write(found: Sequence[PipelineDescription], options: argparse.Namespace) -> int:
    from .module import module_of
    from .python_module import python_module
    from .typescript_module import typescript_module

    by_name = {each.name: each for each in found if each.name != _BRIDGING}
    for name in options.pipelines:
        if name == _BRIDGING:
            return complain("the clients have typed methods for bridging: start_bridging")
        if name not in by_name:
            return complain(
                f"there is no pipeline {name}: there are {', '.join(by_name) or 'none'}"
            )
    if not by_name:
        return complain("there is no pipeline but bridging")
    module = module_of([by_name[name] for name in options.pipelines or by_name], _command(options))
    text = (
        python_module(module, blocking=options.blocking)
        if options.language == "python"
        else typescript_module(module)
    )
    if not options.out:
        sys.stdout.write(text)
        return exit_codes.DONE
    try:
        Path(options.out).expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        return complain(f"cannot write {options.out}: {error.strerror}", exit_codes.FAILED)
    return exit_codes.DONE


def _command(options: argparse.Namespace) -> str:
    """Return the command without what differs between machines: address and file."""
    given = [f"--{options.language}", *(["--blocking"] if options.blocking else [])]
    given += [part for package in options.packages for part in ("--from", package)]
    # Names come first: what stands behind `--from` would read as its value.
    names = sorted(set(options.pipelines))
    return escaped(shlex.join(["headstart", "pipelines", "generate", *names, *given]))
