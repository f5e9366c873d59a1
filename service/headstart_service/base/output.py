"""How commands print: JSON for scripts; for people tables that fit the terminal, and colours."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TextIO

from .escaping import escaped

_GAP: Final = "  "
_NARROWEST: Final = 8
"""A column is not cut below so many characters; what does not fit then goes beyond the edge."""
_LARGEST_WHOLE: Final = 1e15
"""A whole float from here on keeps its exponent: its last digits say nothing."""
_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
COLOURS: Final = {
    "pending": "dim",
    "queued": "dim",
    "in_progress": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "OK": "green",
    "WARN": "yellow",
    "FAIL": "red",
    "SKIP": "dim",
}
"""The colour of a status, a step's state or a check's verdict."""


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Print the one or the other."""
    print(json.dumps(plain(value)) if as_json else text, flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """The text in a colour, if this is a terminal and NO_COLOR does not forbid it."""
    if colour is None or os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns under a header, cut to the terminal's width; whole where there is none."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    if is_terminal(sys.stdout):
        _fit(widths, shutil.get_terminal_size().columns)
    lines = []
    for number, row in enumerate(cells):
        line = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            last = place == len(row) - 1
            cut = clipped(cell, width)
            padded = cut if last else cut.ljust(width)
            line.append(coloured(padded, "bold" if number == 0 else COLOURS.get(cell)))
        lines.append(_GAP.join(line).rstrip())
    return "\n".join(lines)


def graph(needs: Mapping[str, Sequence[str]]) -> str:
    """Steps with what they need, as one line: `a -> b, c; b, c -> d; e`."""
    arrows: dict[tuple[str, ...], list[str]] = {}
    for step, needed in needs.items():
        arrows.setdefault(tuple(needed), []).append(step)
    used = {name for needed in needs.values() for name in needed}
    parts = [
        f"{', '.join(needed)} -> {', '.join(steps)}" for needed, steps in arrows.items() if needed
    ]
    alone = [step for step in arrows.get((), []) if step not in used]
    return "; ".join([*parts, *alone])


def marked(names: Iterable[str], optional: Collection[str], each: str) -> str:
    """What a step takes: `a?` if it can do without `a`, `b[]` if it gets one item of `b`."""
    return ", ".join(
        f"{name}?" if name in optional else f"{name}[]" if name == each else name for name in names
    )


def clipped(text: str, width: int) -> str:
    """At most `width` characters of it."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def _fit(widths: list[int], columns: int) -> None:
    """Take from the widest column, one by one, until all fit."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > columns:
        widest = max(range(len(widths)), key=lambda i: widths[i])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def plain(value: Any) -> Any:  # noqa: PLR0911  # one type a line
    """A client's result as JSON's types: times as ISO 8601 in UTC, durations as seconds."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "to_numpy"):  # a Tensor: its numbers, not its bytes
        return {name: plain(getattr(value, name)) for name in ("dtype", "shape", "values")}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def shortened(value: Any) -> Any:
    """Return JSON's value for people: 400 in place of 400.0, at any depth."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value
    if isinstance(value, Mapping):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    return value


def spoken(seconds: float) -> str:
    """A time as people say it: 0.4 ms, 35 ms, 1.2 s, 4 min, 3 h, 2 d."""
    if 0 < seconds < 0.00995:  # noqa: PLR2004  # 10 ms, as rounded
        return f"{seconds * 1000:.1f} ms"
    for limit, size, unit in (
        (0.9995, 0.001, "ms"),
        (120, 1, "s"),
        (7200, 60, "min"),
        (172_800, 3600, "h"),
    ):
        if seconds < limit:
            number = seconds / size
            return f"{number:.1f} {unit}" if unit == "s" and number < 10 else f"{number:.0f} {unit}"  # noqa: PLR2004  # a digit more where it says something
    return f"{seconds / 86400:.0f} d"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, or in how long, a moment is."""
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    return f"{spoken(seconds)} ago" if seconds >= 0 else f"in {spoken(-seconds)}"
