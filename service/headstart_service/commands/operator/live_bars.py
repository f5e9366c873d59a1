"""A run's steps as bars on a terminal, drawn again and again in the same place."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Any, Final, Self, TextIO

from ...base.escaping import escaped
from ...base.output import (
    COLOURS,
    clipped,
    coloured,
    spoken,
)
from .describing import expected, items_text, progressed, reason_of, step_cells
from .growing_text import last_line

_BAR: Final = 16
_MOVING: Final = 4
"""So much of a bar is filled while its step runs: its progress is not known."""
_INDENT: Final = 4
"""Blanks before what a step gives."""
_SPEED: Final = 10.0
"""Places a second that it moves."""
_MARKS: Final = {"completed": "✔", "failed": "✘", "skipped": "○", "running": "▸", "pending": "·"}
_PLAIN_MARKS: Final = {
    "completed": "+",
    "failed": "x",
    "skipped": "-",
    "running": ">",
    "pending": ".",
}
_UP_AND_CLEAR: Final = "\x1b[{}F\x1b[J"
# Hide the cursor, and cut long lines: a wrapped line would remain after the next picture.
_HIDE, _SHOW = "\x1b[?25l\x1b[?7l", "\x1b[?25h\x1b[?7h"


class LiveView:
    """Draws the last results it was given; in its context the cursor is hidden."""

    def __init__(self, stream: TextIO) -> None:
        """Draw to a terminal."""
        self._stream = stream
        self._results: Any = None
        self._since: dict[str, float] = {}
        self._began = time.monotonic()
        self._drawn = 0
        self._unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"

    def __enter__(self) -> Self:
        self._stream.write(_HIDE)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the cursor back, whatever happened."""
        self._stream.write(_SHOW)
        self._stream.flush()

    def update(self, results: Any) -> None:
        """Show these from the next picture on."""
        last = self._results
        if last is not None and (results.revision, results.created_at) != (
            last.revision,
            last.created_at,
        ):
            self._since.clear()  # another run: after a reset its revision may be the same
        self._results = results
        now = time.monotonic()
        for name, report in results.steps.items():
            if str(report.state) == "running":
                self._since.setdefault(name, now)
            else:
                self._since.pop(name, None)
        self.draw()

    def draw(self) -> None:
        """Put a new picture in the place of the last."""
        columns, rows = shutil.get_terminal_size()
        lines = self._lines(columns - 1)[: rows - 1]
        back = _UP_AND_CLEAR.format(self._drawn) if self._drawn else ""
        self._stream.write(back + "".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def clear(self) -> None:
        """Remove the last picture."""
        if self._drawn:
            self._stream.write(_UP_AND_CLEAR.format(self._drawn))
            self._drawn = 0

    def _lines(self, width: int) -> list[str]:
        if self._results is None:
            return [clipped("waiting for the server", width)]
        steps = self._results.steps
        names = max((len(name) for name in steps), default=0)
        # A name shares its line with a bar, a state and a time.
        names = min(names, max(12, width - _BAR - 40))
        return [
            self._head(width),
            *(
                line
                for name, report in steps.items()
                for line in self._lines_of(name, report, names, width)
            ),
        ]

    def _lines_of(self, name: str, report: Any, names: int, width: int) -> list[str]:
        """A step's line, and under it what it gives at present."""
        lines = [self._line(name, report, names, width)]
        partial = self._results.partials.get(name)
        if partial and str(report.state) == "running":
            text = escaped(last_line(partial))
            room = max(0, width - _INDENT)
            lines.append(" " * _INDENT + (text if len(text) <= room else text[len(text) - room :]))
        return lines

    def _head(self, width: int) -> str:
        results = self._results
        done = len(results.steps) - len(results.missing)
        status = str(results.status)
        text = f"{results.key}  revision {results.revision}  {done} of {len(results.steps)} steps  "
        room = max(0, width - len(status))
        tail = ""
        if reason := reason_of(results):
            tail = clipped(escaped(f"  {reason}"), max(0, room - len(text)))
        return (
            clipped(escaped(text), room)
            + coloured(status, COLOURS.get(status), self._stream)
            + tail
        )

    def _line(self, name: str, report: Any, names: int, width: int) -> str:
        state = str(report.state)
        elapsed, attempts, error = step_cells(report)
        if name in self._since:
            elapsed = spoken(time.monotonic() - self._since[name])
        if attempts:
            attempts = f"{attempts} attempt{'s' if report.attempts > 1 else ''}"
        marks = _MARKS if self._unicode else _PLAIN_MARKS
        start = f"{marks.get(state, ' ')} {clipped(escaped(name), names).ljust(names)}  "
        soon = escaped(progressed(report)) or expected(report)
        rest = f"  {state:<9}  {elapsed:>7}  {attempts or soon}".rstrip()
        if items := items_text(report):
            rest += f"  {items}"
        if error:
            rest += f"  {escaped(error)}"
        colour = COLOURS.get(state)
        if len(start) + _BAR + len(rest) > width:  # no room for everything
            bar = "" if width < len(start) + _BAR + 12 else self._bar(report)
        else:
            bar = self._bar(report)
        rest = clipped(rest, max(0, width - len(start) - len(bar)))
        return coloured(start + bar, colour, self._stream) + rest

    def _bar(self, report: Any) -> str:
        full, empty = ("█", "░") if self._unicode else ("#", ".")
        state, items, progress = str(report.state), report.items, report.progress
        if state == "running" and items is not None and items.total:
            done = int(_BAR * items.ended / items.total)
            return full * done + empty * (_BAR - done)
        if state == "running" and progress is not None and progress.fraction is not None:
            done = round(float(progress.fraction) * _BAR)
            return full * done + empty * (_BAR - done)
        if state == "running":
            way = 2 * (_BAR - _MOVING)
            place = int((time.monotonic() - self._began) * _SPEED) % way
            place = min(place, way - place)
            return empty * place + full * _MOVING + empty * (_BAR - _MOVING - place)
        return (full if state in ("completed", "failed") else empty) * _BAR
