"""`headstart pipelines run`: run a pipeline once on this machine, without a server."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from ...base import exit_codes
from ...base.extras import SERVER, install, listed
from ..declared_pipelines import complain, declared, report
from ..inputs_argument import HELP, METAVAR, inputs_of
from ..operator.execution import positive_duration

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline


def add(actions: Any) -> None:
    """Add the action to the command `pipelines`."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "run",
        **listed("run a pipeline once on this machine, without a server", SERVER),
        description="Run a pipeline once in this process, without a server and without Redis, with "
        "the providers that its steps name. Print each step's time, value or error.",
    )
    take_pipeline(parser)
    parser.add_argument(
        "--complete",
        action="store_true",
        help=f"exit with {exit_codes.INCOMPLETE} unless every step has its result",
    )
    parser.add_argument(
        "--timeout", type=positive_duration, metavar="TIME", help="how long it may take"
    )
    parser.set_defaults(run=_run)


def take_pipeline(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of each command that runs a pipeline on this machine."""
    parser.add_argument("what", metavar="MODULE:NAME", help="the pipeline")
    parser.add_argument(
        "--inputs", metavar=METAVAR, default="{}", help=f"its inputs, {HELP} (default: none)"
    )
    parser.add_argument(
        "--trace", action="store_true", help="print the traceback of each step that failed"
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for scripts"
    )


def _run(options: argparse.Namespace) -> int:
    if ":" not in options.what:
        return complain(f"{options.what} is no MODULE:NAME")
    try:
        inputs = inputs_of(options.inputs)
        pipelines, mistakes = declared({options.what: options.what})
    except ImportError as error:
        return complain(f"pipelines run needs {error.name}: {install('server')}")
    except ValueError as error:
        return complain(str(error))
    if mistakes:
        report(mistakes)
        return exit_codes.FAILED
    return asyncio.run(_run_once(pipelines[0], inputs, options))


async def _run_once(pipeline: Pipeline, inputs: dict[str, Any], options: argparse.Namespace) -> int:
    from headstart import InvalidRequest

    from ...config.loading import load_settings
    from ...domain.errors import StartupError
    from .local_runs import local_runs
    from .showing import show_run, showing

    try:
        async with local_runs(load_settings({})) as runs:
            await runs.open(pipeline)
            async with showing(as_json=options.json) as progress:
                run = await runs.run(pipeline, inputs, progress=progress, timeout=options.timeout)
    except (InvalidRequest, StartupError) as error:
        return complain(str(error))
    except TimeoutError as error:
        return complain(str(error), exit_codes.UNAVAILABLE)
    show_run(run, as_json=options.json, trace=options.trace)
    if options.complete and run.results.missing:
        return complain(f"no result of {', '.join(run.results.missing)}", exit_codes.INCOMPLETE)
    return exit_codes.DONE if run.results.status == "completed" else exit_codes.FAILED
