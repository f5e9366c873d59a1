"""The command watch: a run as it goes, live on a terminal, a line a change anywhere else."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from ...base import exit_codes
from ...base.escaping import escaped
from ...base.output import is_terminal, plain
from .describing import described, expected, items_text, progressed, reason_of, step_cells
from .execution import command, complain
from .growing_text import GrowingText
from .live_bars import LiveView

_FRAME: Final = 0.1
"""Seconds between two pictures of what runs."""


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    watch = command(commands, "watch", _watch, "follow a run, step by step, to its end")
    watch.add_argument("key")
    watch.add_argument(
        "--complete",
        action="store_true",
        help=f"exit with {exit_codes.INCOMPLETE} unless every step has its result",
    )
    for action in watch._actions:  # noqa: SLF001  # argparse gives no other way to it
        if action.dest == "timeout":
            action.help = "how long to watch (default: to its end)"


async def _watch(client: Any, options: argparse.Namespace) -> int:
    try:
        async with (
            asyncio.timeout(options.timeout),
            aclosing(client.watch_results(options.key, partial_results=not options.json)) as stream,
        ):
            last = await _follow(stream, options)
    except TimeoutError:
        raise TimeoutError(f"the run has not ended within {options.timeout:g} s") from None
    if options.complete and last.missing:
        complain(f"no result of {', '.join(last.missing)}")
        return exit_codes.INCOMPLETE
    return exit_codes.DONE if str(last.status) == "completed" else exit_codes.FAILED


async def _follow(stream: AsyncGenerator[Any, None], options: argparse.Namespace) -> Any:
    """Show each state; gives the last."""
    if options.json:
        return await _lines_of_json(stream)
    if is_terminal(sys.stdout):
        return await _live(stream)
    return await _lines(stream)


async def _lines_of_json(stream: AsyncGenerator[Any, None]) -> Any:
    results = None
    async for results in stream:  # the last value is the answer
        print(json.dumps(plain(results)), flush=True)
    return results


async def _lines(stream: AsyncGenerator[Any, None]) -> Any:
    """One line for each change, and for each line of text that a step gives."""
    results, status = None, ""
    growing = GrowingText()
    shown: dict[str, str] = {}
    async for results in stream:
        head = f"revision {results.revision}: {results.status}"
        if reason := reason_of(results):
            head += f" ({reason})"
        lines = []
        for name, report in results.steps.items():
            line = _line(name, report)
            if shown.get(name, "pending") != line and str(report.state) != "pending":
                shown[name] = line
                soon = expected(report)
                lines.append(f"{line} ({soon})" if soon else line)
        lines = [*growing.lines(results), *lines]
        # The line of an end follows its steps' lines; the line of a beginning precedes them.
        lines = [*lines, head] if results.status.ended else [head, *lines]
        for line in lines:
            if line != head or head != status:
                print(escaped(f"{results.key} {line}"), flush=True)
        status = head
    return results


def _line(name: str, report: Any) -> str:
    elapsed, attempts, error = step_cells(report)
    parts = [f"{name}: {report.state}"]
    if items := items_text(report):
        parts.append(f"{items}," if elapsed or report.attempts > 1 else items)
    if elapsed:
        parts.append(elapsed if elapsed == report.origin else f"in {elapsed}")
    if progress := progressed(report):
        parts.append(progress)
    if report.attempts > 1:
        parts.append(f"at attempt {attempts}")
    line = " ".join(parts)
    return f"{line} ({error})" if error else line


async def _live(stream: AsyncGenerator[Any, None]) -> Any:
    """A picture that is drawn anew while anything runs, and the results under the last one."""
    with LiveView(sys.stdout) as view:
        showing = asyncio.create_task(_draw(view))
        results = None
        try:
            async for results in stream:
                view.update(results)
        finally:
            showing.cancel()
            await asyncio.wait({showing})
        view.draw()
    if results is not None:
        # The picture has shown status and steps already, so only values are printed.
        values = described(results).split("\n")[2 + len(results.steps) :]
        print("\n".join(values), flush=True)
    return results


async def _draw(view: LiveView) -> None:
    while True:
        view.draw()
        await asyncio.sleep(_FRAME)
