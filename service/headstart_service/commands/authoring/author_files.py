"""Tells an author's files from those of Python, of installed packages and of Headstart."""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path


def is_authors(file: str | None) -> bool:
    """Return whether a module's file is one that its author edits."""
    if file is None or file.startswith("<"):
        return False
    path = Path(file).absolute()
    return not any(path.is_relative_to(folder) for folder in _foreign())


@functools.cache
def _foreign() -> frozenset[Path]:
    import headstart

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    own = (Path(__file__).parents[2], Path(headstart.__file__).parent)
    return frozenset({*(Path(sysconfig.get_path(name)) for name in names), *own})
