"""Replaces the generated part of a page: what follows its marker, up to an empty line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PART: Final = re.compile(
    r"(<!-- written by make (?:docs|drills) -->\n).*?(?=\n\n|\n?\Z)", re.DOTALL
)


def replaced(text: str, lines: Iterable[str]) -> str:
    """Return a page's text with these lines behind its marker. Raises ValueError without one."""
    part = "\n".join(lines)
    page, count = _PART.subn(lambda marker: marker[1] + part, text)
    if count != 1:
        raise ValueError(
            f"a page needs one marker such as <!-- written by make docs -->, has {count}"
        )
    return page


def written(text: str) -> str:
    """Return a page's text without its generated part."""
    return _PART.sub(r"\1", text)


def row(*cells: str) -> str:
    """Return a table's row; a bar in a cell is escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
