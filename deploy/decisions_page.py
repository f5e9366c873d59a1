"""Writes the list in docs/decisions/README.md from the headings of the pages beside it."""

from __future__ import annotations

from typing import Final

from .markers import replaced
from .pins import ROOT

PAGE: Final = ROOT / "docs" / "decisions" / "README.md"


def page(text: str) -> str:
    """Return docs/decisions/README.md with a link for each decision."""
    pages = sorted(PAGE.parent.glob("0*.md"))
    return replaced(text, (f"- [{_title(path.read_text())}]({path.name})" for path in pages))


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")
