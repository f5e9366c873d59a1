"""What a step raised, with the author's line that raised it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...base.escaping import escaped
from .author_files import is_authors

if TYPE_CHECKING:
    from headstart._for_service import PipelineRun

    from ...pipeline.pipeline import Pipeline

_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)
"""A frame in the text of a traceback: a step in another process leaves no more."""
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step has no value."""

    step: str
    where: str
    """As file:line."""
    text: str
    trace: str
    """The whole traceback; empty if nothing was raised."""

    def __str__(self) -> str:
        return f"{self.where}: step {self.step}: {self.text}"


def errors_of(pipeline: Pipeline, run: PipelineRun) -> Iterator[StepError]:
    """Yield an error for each step that failed; skipped steps follow from those."""
    from ...pipeline.mistakes import line_of, place

    for name, report in run.steps.items():
        if report.state != "failed":
            continue
        error = run.exceptions.get(name)
        if error is None or str(error) == report.error or "internal error" not in str(report.error):
            text = report.error or ""
        else:
            text = _text(error)
        found = _frames(error) if error is not None else []
        where = place(*found[-1]) if found else line_of(pipeline.by_name[name].function)
        yield StepError(name, where, escaped(text)[:_LONGEST], _trace(error))


def _frames(error: BaseException) -> list[tuple[str, int]]:
    """Return the file and line of each frame in the author's files, the innermost last."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)]
    if _is_remote(error):
        frames = [(file, int(line)) for file, line in _FRAME.findall(str(error))]
    return [(file, line) for file, line in frames if is_authors(file)]


def _text(error: BaseException) -> str:
    if _is_remote(error):
        # The error follows the frames, which are indented.
        lines = str(error).strip().split("\n")
        frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
        return "\n".join(lines[frames[-1] + 1 if frames else 0 :])
    return f"{type(error).__name__}: {error}"


def _trace(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if _is_remote(error) else "".join(traceback.format_exception(error))


def _is_remote(error: BaseException) -> bool:
    from ...worker.executors.remote_call import StepRaised

    return isinstance(error, StepRaised) and error.__cause__ is None
