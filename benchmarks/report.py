"""What comes out: a table to read, JSON to keep, a chart for each figure."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .results import TIMES, Line, Result, Verdict

_HEADS = ("figure", "Headstart", "reference", "ratio", "noise", "target", "verdict")


def table(results: Sequence[Result]) -> str:
    """Every line: the medians with their spread, the ratio with its noise, target and verdict."""
    rows: list[tuple[str, ...]] = [_HEADS]
    notes: list[str] = []
    for result in results:
        rows += [_row(line) for line in result.lines]
        if result.unavailable:
            notes.append(f"not measured: {result.title} ({result.figure}): {result.unavailable}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [aligned(row, widths) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    legend = (
        "Medians ± the typical deviation of one repetition. Contender and reference take turns; a "
        "ratio is the median\nof the repetitions' own. A miss by less than its noise is none."
    )
    return "\n".join([*lines, "", *notes, *([""] if notes else []), legend])


def write(
    results: Sequence[Result], directory: Path, chart: Callable[[Result], str], *, quick: bool
) -> None:
    """Write `results.json` and one chart a figure, in place of those of an earlier run."""
    directory.mkdir(parents=True, exist_ok=True)
    for chart_before in directory.glob("*.svg"):
        chart_before.unlink()
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": _machine(),
        "figures": [_as_json(result) for result in results],
    }
    (directory / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    for result in results:
        if result.lines:
            (directory / f"{result.figure}.svg").write_text(chart(result))


def _row(line: Line) -> tuple[str, ...]:
    reference = ""
    if line.reference is not None:
        median, spread = line.reference.median, line.reference.spread
        reference = f"{number(median)} ±{spread:.0%}  {line.reference.name}"
    return (
        line.title,
        f"{number(line.contender.median)} {line.unit} ±{line.contender.spread:.0%}",
        reference,
        f"{line.value:.3g}{TIMES}" if line.reference else "",
        f"±{line.noise:.2g}",
        str(line.target or ""),
        str(line.verdict),
    )


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """A row of a table."""
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
    }


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "name": result.figure,
        "title": result.title,
        "seconds": round(result.seconds, 1),
        "unavailable": result.unavailable or None,
        "lines": [_line_as_json(line) for line in result.lines],
    }


def _line_as_json(line: Line) -> dict[str, Any]:
    series = [
        {"name": each.name, "median": each.median, "samples": list(each.samples)}
        for each in (line.contender, line.reference)
        if each is not None
    ]
    return {
        "title": line.title,
        "unit": line.unit,
        "size": line.size,
        "note": line.note,
        "series": series,
        "is_ratio": line.reference is not None,
        "value": line.value,
        "noise": line.noise,
        "target": str(line.target) if line.target else None,
        "verdict": str(line.verdict) or None,
        "missed": line.verdict is Verdict.MISSED,
    }
