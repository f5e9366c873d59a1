"""The command line of a set of figures: measures them, prints the table, keeps results and charts.

`python -m benchmarks` and its sisters are this with figures of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from . import report
from .charts import bar_chart
from .harness import Bench, Figure, Unavailable
from .results import Result, Verdict

MISSED, INCOMPLETE = 1, 3


@dataclass(frozen=True)
class Output:
    """How results are shown."""

    table: Callable[[Sequence[Result]], str]
    chart: Callable[[Result], str]
    """A figure's SVG."""


BARS = Output(report.table, bar_chart)


def run(
    program: str, description: str, figures: Sequence[Figure], out: Path, output: Output = BARS
) -> int:
    """Measure those that the command line names, or all; gives the exit code."""
    options = _options(program, description, [figure.name for figure in figures], out)
    if options.list:
        width = max(len(figure.name) for figure in figures)
        print("\n".join(f"{figure.name:{width}}  {figure.title}" for figure in figures))
        return 0
    chosen = [figure for figure in figures if not options.only or figure.name in options.only]
    left_out = dict(_left_out(chosen))
    for title, reason in left_out.items():
        print(f"left out: {title}: {reason}", file=sys.stderr)
    chosen = [figure for figure in chosen if figure.title not in left_out]
    try:
        results = asyncio.run(_measure(chosen, options))
    except KeyboardInterrupt:
        return 130
    report.write(results, options.out, output.chart, quick=options.quick)
    print(output.table(results))
    print(f"\nEvery sample is in {options.out}/results.json, a chart of each figure beside it.")
    return exit_code(results)


def exit_code(results: Sequence[Result]) -> int:
    """What the results mean for whoever has started this."""
    if any(line.verdict is Verdict.MISSED for result in results for line in result.lines):
        return MISSED
    return INCOMPLETE if any(result.unavailable for result in results) else 0


def _left_out(figures: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    """Give the titles of figures that cannot be measured here, each with the reason."""
    for figure in figures:
        try:
            if figure.needs is not None:
                figure.needs()
        except Unavailable as missing:
            yield figure.title, str(missing)


async def _measure(figures: Sequence[Figure], options: argparse.Namespace) -> list[Result]:
    results = []
    shape = "{l_bar}{bar}| {n:.1f}/{total} figures [{elapsed}<{remaining}]"
    # On a terminal redrawn, in a log a line now and then.
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=len(figures), bar_format=shape, mininterval=every) as progress:
        for place, figure in enumerate(figures):
            progress.set_description(figure.title)
            results.append(await _measure_one(figure, options, progress))
            progress.update(place + 1 - progress.n)
        progress.set_description("done")
    return results


async def _measure_one(
    figure: Figure, options: argparse.Namespace, progress: tqdm[NoReturn]
) -> Result:
    began = time.monotonic()

    def tick(share: float) -> None:
        progress.update(share)

    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as work:
        bench = Bench(options.quick, Path(work), options.redis_url, tick)
        try:
            async with bench.stack:
                lines = await figure.measure(bench)
        except Unavailable as missing:
            return Result(figure.name, figure.title, unavailable=str(missing))
        except Exception as error:  # noqa: BLE001  # the others are measured all the same
            progress.write(traceback.format_exc(), file=sys.stderr)
            reason = f"failed: {type(error).__name__}, see above"
            return Result(figure.name, figure.title, unavailable=reason)
    without = "; ".join(bench.missing)
    return Result(figure.name, figure.title, lines, without, time.monotonic() - began)


def _options(program: str, description: str, names: Sequence[str], out: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less of it: all within minutes")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help="these figures alone"
    )
    parser.add_argument("--list", action="store_true", help="list the figures")
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
        help="directory for results.json and the charts (default: %(default)s)",
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help="an empty Redis or Valkey to use; it is emptied afterwards (default: one of our own)",
    )
    return parser.parse_args()
