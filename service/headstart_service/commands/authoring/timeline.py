"""A run that has ended as a table for its author: each step's time as a bar, and its value."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ...base.escaping import escaped
from ...base.output import COLOURS, clipped, coloured, spoken, table
from ..operator.describing import short_value, step_cells

if TYPE_CHECKING:
    from .local_runs import LocalRun

_WIDTH: Final = 20
"""Characters of the bars."""
_LONGEST: Final = 100
"""Characters of a value."""


def described(run: LocalRun) -> str:
    """Return a line about the run and the table of its steps."""
    return f"{_head(run)}\n{table(_rows(run))}"


def _head(run: LocalRun) -> str:
    results = run.results
    status = str(results.status)
    assert results.started_at is not None
    assert results.completed_at is not None
    took = spoken((results.completed_at - results.started_at).total_seconds())
    why = f" ({escaped(results.error)})" if results.error and not run.errors else ""
    return f"{results.pipeline}: {coloured(status, COLOURS.get(status))} in {took}{why}"


def _rows(run: LocalRun) -> list[tuple[str, ...]]:
    steps = run.results.steps
    ends = {name: began + _seconds(run, name) for name, began in run.began.items()}
    whole = max(ends.values(), default=0.0)
    tried = any(report.attempts > 1 for report in steps.values())
    rows = [("STEP", "STATE", "TIMELINE", "TIME", *(["TRIES"] if tried else []), "VALUE")]
    for name, report in steps.items():
        elapsed, attempts, error = step_cells(report)
        bar = _bar(run.began[name], ends[name], whole) if name in run.began else ""
        failed = next((each.text for each in run.errors if each.step == name), error)
        value = _value(run, name) if name in run.values else failed
        rows.append((name, str(report.state), bar, elapsed, *([attempts] if tried else []), value))
    return rows


def _seconds(run: LocalRun, name: str) -> float:
    elapsed = run.results.steps[name].elapsed
    return elapsed.total_seconds() if elapsed else 0.0


def _value(run: LocalRun, name: str) -> str:
    """Return a step's value as callers get it, or as Python shows it if the codec is another."""
    custom = run.results.custom or {}
    if name in custom:
        return short_value(custom[name])
    return clipped(escaped(repr(run.values[name])), _LONGEST)


def _bar(began: float, ended: float, whole: float) -> str:
    """Return where in the run a step was under way; at least one character of it."""
    full, empty = ("█", "·") if _unicode() else ("#", ".")
    scale = _WIDTH / whole if whole else 0.0
    first = min(_WIDTH - 1, int(began * scale))
    last = min(_WIDTH, max(first + 1, round(ended * scale)))
    return empty * first + full * (last - first) + empty * (_WIDTH - last)


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
