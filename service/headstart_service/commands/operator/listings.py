"""The commands about all that a server has: list, stats, pipelines."""

from __future__ import annotations

import argparse
from contextlib import aclosing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ...base import exit_codes
from ...base.escaping import escaped
from ...base.output import (
    ago,
    graph,
    marked,
    show,
    table,
)
from .accounting_view import accounting_text
from .execution import command, complain

STATUSES: Final = ("pending", "in_progress", "completed", "failed", "cancelled")
_LARGEST_PAGE: Final = 1000
_HEADINGS: Final = {"output_type": "RETURNS", "required": "KIND", "max_attempts": "ATTEMPTS"}
"""Headings of columns that differ from the field's name."""
_NOT_SHOWN: Final = ("name", "output_schema", "optional_needs", "parallel", "max_items")
"""Fields of a step's description that the table has in another way, or not."""


def add(commands: Any) -> None:
    """Add the commands to the parser's subcommands."""
    listing = command(commands, "list", _list, "list what is kept")
    listing.add_argument(
        "--status",
        action="append",
        default=[],
        choices=STATUSES,
        help="only runs of this status; may be given several times",
    )
    listing.add_argument(
        "--pipeline", default="", metavar="NAME", help="only runs of this pipeline"
    )
    listing.add_argument(
        "--prefix", default="", metavar="TEXT", help="only keys that begin so; needs --namespace"
    )
    listing.add_argument(
        "--limit",
        type=_limit,
        default=100,
        metavar="N",
        help="at most so many; 0: all (default: 100)",
    )
    command(commands, "stats", _stats, "count what is kept and running")
    command(commands, "pipelines", _pipelines, "list what can be started, with its steps")


def _limit(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 0 or more")
    return number


async def _list(client: Any, options: argparse.Namespace) -> int:
    runs: list[Any] = []
    more = False
    size = min(options.limit + 1, _LARGEST_PAGE) if options.limit else _LARGEST_PAGE
    filters = {"key_prefix": options.prefix, "pipeline": options.pipeline}
    listed = client.list(statuses=options.status, page_size=size, **filters)
    async with aclosing(listed) as found:
        async for run in found:
            if options.limit and len(runs) == options.limit:
                more = True
                break
            runs.append(run)
    now = datetime.now(UTC)
    rows = [("NAMESPACE", "KEY", "PIPELINE", "STATUS", "REVISION", "CREATED", "EXPIRES")]
    rows += [
        (
            *(run.namespace, run.key, run.pipeline, str(run.status), f"{run.revision}"),
            ago(run.created_at, now),
            ago(run.expires_at, now) if run.status.ended else "",
        )
        for run in runs
    ]
    show(runs, table(rows), as_json=options.json)
    if more:
        complain(f"these are the first {options.limit}; --limit 0 lists all")
    return exit_codes.DONE


async def _stats(client: Any, options: argparse.Namespace) -> int:
    stats = await client.get_stats()
    rows = [
        ("COUNT", "RUNS"),
        ("kept", f"{stats.total_cached} of {stats.max_cached}"),
        ("running", f"{stats.active_tasks}"),
        ("queued", f"{stats.queued_jobs}"),
        *((str(status), f"{count}") for status, count in sorted(stats.status_counts.items())),
    ]
    text = table(rows)
    if stats.ledger is not None:
        text += f"\n\n{accounting_text(stats.ledger)}"
    show(stats, text, as_json=options.json)
    return exit_codes.DONE


def _heading(name: str) -> str:
    """Return the column's heading for a field of a step's description."""
    return _HEADINGS.get(name) or name.replace("_", " ").upper()


def _cell(name: str, value: object) -> str:
    """Show a field of a step's description. A switch that is on shows its name."""
    match value:
        case bool():
            on, off = ("required", "optional") if name == "required" else (name, "")
            return on if value else off
        case tuple():
            return ", ".join(value)
        case timedelta():
            return f"{value.total_seconds():g} s" if value else ""
        case None:
            return ""
        case _:
            return str(value)


def _needs(step: Any) -> list[str]:
    return [marked([need], step.optional_needs, "") for need in step.needs]


async def _pipelines(client: Any, options: argparse.Namespace) -> int:
    from headstart import StepDescription

    pipelines = await client.list_pipelines()
    shown_fields = [each.name for each in fields(StepDescription) if each.name not in _NOT_SHOWN]
    rows = [("PIPELINE", "STEP", *map(_heading, shown_fields))]
    graphs = []
    for pipeline in pipelines:
        needed = {step.name: step.needs for step in pipeline.steps}
        graphs.append(f"{pipeline.name}: {graph(needed)}")
        for step in pipeline.steps:
            marked_step = replace(step, needs=tuple(_needs(step)))
            cells = (_cell(name, getattr(marked_step, name)) for name in shown_fields)
            rows.append((pipeline.name, step.name, *cells))
    shown = "\n".join([table(rows), *map(escaped, graphs)])
    show(pipelines, shown, as_json=options.json)
    return exit_codes.DONE
