"""Progress of building: a bar in a terminal, a few lines of log elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

from .building import Progress

_STEPS = 5
"""Log lines between the first and the last."""

_log = logging.getLogger(__name__)


@contextmanager
def build_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """A progress callback for `build`, shown on `stream` (default: standard error)."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield _log_lines()
        return
    from tqdm import tqdm

    bar: tqdm[NoReturn] | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # made here: there may be nothing to build, hence nothing to show
            bar = tqdm(total=total, desc="Embedding the vocabulary", unit=" words", file=stream)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _log_lines() -> Progress:
    logged = -1

    def log(done: int, total: int) -> None:
        nonlocal logged
        step = _STEPS * done // max(total, 1)
        if step > logged:
            logged = step
            _log.info("embedding the vocabulary: %d of %d words", done, total)

    return log
