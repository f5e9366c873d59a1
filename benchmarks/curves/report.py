"""The table of curves: a row a point, and under them what a curve must keep to."""

from __future__ import annotations

from collections.abc import Sequence

from ..report import aligned, number
from ..results import TIMES, Line, Result
from .curve import Curve

_HEADS = ("", "size", "median", "spread", "growth")


def table(results: Sequence[Result], curves: Sequence[Curve]) -> str:
    """Each curve's points: median, spread of the repetitions, growth since the smallest size."""
    sizes = {curve.figure.name: curve.size for curve in curves}
    parts = [_section(result, sizes[result.figure]) for result in results]
    legend = (
        "Medians ± the typical deviation of one repetition; growth is against the smallest size.\n"
        "A bound that is missed by less than its noise is none that is missed."
    )
    return "\n\n".join([*parts, legend])


def _section(result: Result, size: str) -> str:
    head = f"{result.title} ({result.figure}), {result.seconds:.0f} s; size: {size}"
    if result.unavailable:
        return f"{result.title} ({result.figure})\nnot measured: {result.unavailable}"
    rows: list[tuple[str, ...]] = [_HEADS]
    smallest: dict[tuple[str, str], float] = {}
    for line in result.lines:
        if line.size is None:
            continue
        first = smallest.setdefault((line.title, line.unit), line.contender.median)
        rows.append(_row(line, first))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [aligned(row, widths) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    checks = [_check(line) for line in result.lines if line.size is None]
    notes = list(dict.fromkeys(line.note for line in result.lines if line.note))
    return "\n".join([head, *lines, *checks, *notes])


def _row(line: Line, first: float) -> tuple[str, ...]:
    assert line.size is not None
    growth = f"{line.contender.median / first:.3g}{TIMES}" if first > 0 else ""
    return (
        line.title,
        f"{line.size:,.0f}",
        f"{number(line.contender.median)} {line.unit}",
        f"±{line.contender.spread:.0%}",
        growth,
    )


def _check(line: Line) -> str:
    bound = f", must be {line.target}: {line.verdict}" if line.target else ""
    times = TIMES if line.reference else f" {line.unit}"
    return f"{line.title}: {number(line.value)}{times} ±{number(line.noise)}{bound}"
