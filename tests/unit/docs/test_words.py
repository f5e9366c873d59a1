"""The check of the language reports what breaks a rule, and nothing else."""

from __future__ import annotations

import pytest

from deploy.words import ROOT, faults, texts

LONG = "Word " * 26


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (LONG, "length"),
        ("Word, " * 14 + "word; " + "word " * 12, "length"),
        ("First line.\nWho waits gets it.", "word 'Who'"),
        ("The caller is told why.", "word 'is told'"),
        ("A replica hears everything.", "word 'hears'"),
        ("The log says why.", "word 'log says'"),
        ("It harms nobody.", "word 'nobody'"),
        (f"| name | {LONG} |", "length"),
        ("| name | receives and then hears |", "word 'hears'"),
    ],
)
def test_a_sentence_that_breaks_a_rule_is_reported(text: str, rule: str) -> None:
    [(_, message)] = faults(text)
    assert message.startswith(rule)


def test_the_line_is_that_of_the_sentence() -> None:
    assert [line for line, _ in faults("One.\n\nTwo.\nIt hears.")] == [4]


@pytest.mark.parametrize(
    "text",
    [
        "Word " * 25,
        f"```sh\n{LONG}\n```",
        f"| {'Word ' * 20} | {'word ' * 20} |",
        f"| --- | `{LONG} | {LONG}` |",
        f"Run `{LONG}` now.",
        f"See [{LONG}](page.md).",
        "Callers who wait receive it.",
    ],
)
def test_what_is_right_or_no_prose_is_not_reported(text: str) -> None:
    assert list(faults(text)) == []


def test_docstrings_errors_logs_and_help_are_read() -> None:
    source = '"""Doc."""\nraise ValueError(f"a {b}")\nlog.info("line")\nf(help="how")\n'
    assert sorted(texts(source)) == [(1, "Doc."), (2, "a X"), (3, "line"), (4, "how")]


def test_the_pages_hold_at_most_25_000_words() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 40
    assert sum(len(page.read_text().split()) for page in pages) <= 25_000
