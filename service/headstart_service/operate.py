"""The operator's commands: start, get, watch, list, cancel, stats and pipelines, on any server.

They use the light client alone, so they start fast and run wherever it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from . import client_options

_FAILED = 1
_WRONG_ARGUMENTS = 2
_NOT_FOUND = 3

Command = Callable[[Any, argparse.Namespace], Awaitable[None]]


def add(commands: Any) -> None:
    """Add every command to the parser's subcommands."""
    start = _command(commands, "start", _start, "start a bridging game, or any other pipeline")
    start.add_argument("key")
    start.add_argument("anchor", nargs="?", help="the word to start from")
    start.add_argument("target", nargs="?", help="the word to get to")
    start.add_argument("--recipient", choices=("human", "haiku"), default="human")
    start.add_argument("--clues", type=int, help="how many clues make a bridge")
    start.add_argument("--pipeline", help="another pipeline than bridging")
    start.add_argument("--inputs", default="{}", help="its inputs, as a JSON object")
    start.add_argument("--ttl", type=float, help="how many seconds its results live")
    start.add_argument("--restart", action="store_true", help="compute anew")

    get = _command(commands, "get", _get, "show the results that exist")
    get.add_argument("key")
    get.add_argument("--wait", type=float, default=0.0, help="seconds to wait for all of them")

    watch = _command(commands, "watch", _watch, "show each step as it ends")
    watch.add_argument("key")

    listing = _command(commands, "list", _list, "list what is kept")
    listing.add_argument("--limit", type=int, default=100, help="at most so many (default: 100)")

    cancel = _command(commands, "cancel", _cancel, "end a run")
    cancel.add_argument("key")

    _command(commands, "stats", _stats, "count what is kept and running")
    _command(commands, "pipelines", _pipelines, "list what can be started")


def _command(commands: Any, name: str, run: Command, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--address", help="the server (default: HEADSTART_ADDRESS, else localhost:50051)"
    )
    client_options.add(parser)
    parser.add_argument("--namespace", default="", help="whose keys (default: default; lists: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda options: _execute(run, options))
    return parser


def _execute(run: Command, options: argparse.Namespace) -> int:
    import headstart

    async def execute() -> None:
        async with headstart.PrecomputeClient(
            options.address, namespace=options.namespace, tls=client_options.tls_of(options)
        ) as client:
            await run(client, options)

    try:
        asyncio.run(execute())
    except headstart.NotFound as error:
        return _complain(error, _NOT_FOUND)
    except (headstart.InvalidRequest, ValueError) as error:
        return _complain(error, _WRONG_ARGUMENTS)
    except headstart.HeadstartError as error:
        return _complain(error, _FAILED)
    return 0


def _complain(error: Exception, code: int) -> int:
    print(f"headstart: {error}", file=sys.stderr)
    return code


async def _start(client: Any, options: argparse.Namespace) -> None:
    rules = {"ttl": options.ttl, "restart": options.restart}
    if options.pipeline:
        inputs = json.loads(options.inputs)
        if not isinstance(inputs, dict):
            raise ValueError("--inputs must be a JSON object")
        started = await client.start(options.key, options.pipeline, inputs, **rules)
    elif options.anchor is None or options.target is None:
        raise ValueError("give an anchor and a target, or --pipeline and --inputs")
    else:
        started = await client.start_bridging(
            options.key,
            options.anchor,
            options.target,
            options.recipient,
            clue_count=options.clues,
            **rules,
        )
    _show(options, started, f"{started.outcome}: revision {started.revision}, {started.status}")


async def _get(client: Any, options: argparse.Namespace) -> None:
    results = await client.get_results(options.key, wait=options.wait)
    _show(options, results, _described(results))


async def _watch(client: Any, options: argparse.Namespace) -> None:
    async for results in client.watch_results(options.key):
        _show(options, results, _described(results))


async def _list(client: Any, options: argparse.Namespace) -> None:
    runs: list[Any] = []
    async for run in client.list():
        if len(runs) == options.limit:
            break
        runs.append(run)
    rows = [
        (r.namespace, r.key, r.pipeline, r.status, f"{r.revision}", _time(r.created_at))
        for r in runs
    ]
    header = ("NAMESPACE", "KEY", "PIPELINE", "STATUS", "REVISION", "CREATED")
    _show(options, runs, _table([header, *rows]))


async def _cancel(client: Any, options: argparse.Namespace) -> None:
    done = await client.cancel(options.key)
    _show(options, done, f"{'cancelled' if done.cancelled else 'had ended before'}: {done.status}")


async def _stats(client: Any, options: argparse.Namespace) -> None:
    stats = await client.get_stats()
    rows = [
        ("kept", f"{stats.total_cached} of {stats.max_cached}"),
        ("running", f"{stats.active_tasks}"),
        ("queued", f"{stats.queued_jobs}"),
        *((status, f"{count}") for status, count in sorted(stats.status_counts.items())),
    ]
    _show(options, stats, _table(rows))


async def _pipelines(client: Any, options: argparse.Namespace) -> None:
    pipelines = await client.list_pipelines()
    rows = [("PIPELINE", "STEP", "NEEDS", "REQUIRED", "TIMEOUT")]
    for pipeline in pipelines:
        for step in pipeline.steps:
            required = "yes" if step.required else "no"
            timeout = f"{step.timeout.total_seconds():g} s"
            rows.append((pipeline.name, step.name, ", ".join(step.needs), required, timeout))
    _show(options, pipelines, _table(rows))


def _described(results: Any) -> str:
    rows = [("STEP", "STATE", "TIME", "ERROR")]
    for name, report in results.steps.items():
        elapsed = f"{report.elapsed.total_seconds() * 1000:.0f} ms" if report.elapsed else ""
        rows.append((name, report.state, elapsed, report.error or ""))
    head = f"{results.key} revision {results.revision}: {results.status}"
    if results.error:
        head += f" ({results.error})"
    bridging = results.bridging
    lines = [head, _table(rows)]
    if bridging and bridging.lexical_bridge:
        lines.append(f"lexical bridge: {', '.join(bridging.lexical_bridge)}")
    if bridging and bridging.haiku_clues:
        lines.append(f"haiku's bridge: {', '.join(bridging.haiku_clues)}")
    return "\n".join(lines)


def _show(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(_plain(value)) if options.json else text, flush=True)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _plain(value: Any) -> Any:  # noqa: PLR0911  # one type a line
    """A client's result as JSON's types."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
