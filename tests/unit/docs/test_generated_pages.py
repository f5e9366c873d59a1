"""Each generated part is what `make docs` writes, and each generator refuses a page without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.markers import replaced, row
from deploy.pages import PAGES
from deploy.pins import ROOT


@pytest.mark.parametrize(
    ("path", "write"), PAGES.items(), ids=[str(path.relative_to(ROOT)) for path in PAGES]
)
def test_a_generated_part_is_what_the_code_says(path: Path, write: Callable[[str], str]) -> None:
    text = path.read_text()
    assert write(text) == text, "make docs"


def test_every_page_that_names_make_docs_as_its_writer_has_a_writer() -> None:
    marked = {
        p for p in ROOT.glob("docs/**/*.md") if "<!-- written by make docs -->" in p.read_text()
    }
    assert marked == {path for path in PAGES if path.suffix == ".md"}


def test_a_part_ends_at_an_empty_line_or_at_the_end_of_its_page() -> None:
    marker = "<!-- written by make docs -->\n"
    assert (
        replaced(f"Head.\n\n{marker}old\n\nTail.\n", ["a", "b"])
        == f"Head.\n\n{marker}a\nb\n\nTail.\n"
    )
    assert replaced(f"{marker}old\nolder\n", ["a"]) == f"{marker}a\n"
    with pytest.raises(ValueError, match="has 0"):
        replaced("Head.\n", ["a"])
    assert row("a|b", "c") == r"| a\|b | c |"
