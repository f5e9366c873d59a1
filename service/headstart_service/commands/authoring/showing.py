"""Shows a local run: bars while it goes on a terminal, its table or JSON at the end."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, Final

from ...base.output import is_terminal, plain, show
from ..operator.live_bars import LiveView
from .timeline import described

if TYPE_CHECKING:
    from .local_runs import LocalRun, Progress

_FRAME: Final = 0.1
"""Seconds between two pictures of what runs."""


@asynccontextmanager
async def showing(*, as_json: bool) -> AsyncIterator[Progress]:
    """Give what draws a run while it goes, and keep what its steps print apart from that.

    On a terminal that appears under the last picture. With JSON it goes to standard error.
    """
    if as_json or not is_terminal(sys.stdout):
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            yield lambda _: None
        return
    stream, printed = sys.stdout, io.StringIO()
    try:
        with LiveView(stream) as view, redirect_stdout(printed):
            drawing = asyncio.create_task(_draw(view))
            try:
                yield view.update
            finally:
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing
                view.clear()
    finally:
        stream.write(printed.getvalue())
        stream.flush()


def show_run(run: LocalRun, *, as_json: bool, trace: bool) -> None:
    """Print a run that has ended, and on standard error why steps of it failed."""
    show(as_data(run), "" if as_json else described(run), as_json=as_json)
    if as_json:
        return
    for error in run.errors:
        print(error.trace.rstrip() if trace and error.trace else error, file=sys.stderr, flush=True)


def as_data(run: LocalRun) -> dict[str, Any]:
    """Return a run as JSON's types: its results, and the author's line of each failure."""
    errors = [{"step": e.step, "where": e.where, "text": e.text} for e in run.errors]
    return {**plain(run.results), "errors": errors}


async def _draw(view: LiveView) -> None:
    while True:
        await asyncio.sleep(_FRAME)
        view.draw()
