"""The check of the language reports what breaks a rule, and nothing else."""

from __future__ import annotations

import pytest

from deploy.markers import written
from deploy.words import ROOT, faults, names, texts

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


def test_docstrings_of_attributes_are_read() -> None:
    source = 'port = 1\n"""Where."""\nhost: str\n"""Which."""\n"""No attribute\'s."""\n'
    assert sorted(texts(source)) == [(2, "Where."), (4, "Which.")]


def test_lines_of_one_comment_are_read_as_one_text() -> None:
    source = (
        "# It hears\n# every word.\na = 1  # Beside.\n# Below.\nb = '# no comment'  # noqa: E1\n"
    )
    assert sorted(texts(source)) == [(1, "It hears\nevery word."), (3, "Beside."), (4, "Below.")]


@pytest.mark.parametrize(
    "source",
    [
        "told = 1",
        "self.last_said = 1",
        "for _HEARD in a: pass",
        "def tell_all(): pass",
        "def f(*, asked): pass",
        "class RunServicer: pass",
        "class Pace: pass",
        "import metrics as figures",
        "PLACES: int",
        "f'{(looks := 1)}'",
    ],
)
def test_a_private_word_in_a_name_is_reported(source: str) -> None:
    [(line, message)] = names(source)
    assert line == 1
    assert message.startswith("name '")


@pytest.mark.parametrize(
    "source",
    [
        "context: aio.ServicerContext",
        "class Health(HealthServicer): pass",
        "told(looks)",
        "retold = space = figure = 1",
        "class Item(BaseModel):\n    figures: int = 0",
    ],
)
def test_a_name_of_other_code_or_without_such_a_word_is_not_reported(source: str) -> None:
    assert list(names(source)) == []


def test_the_pages_hold_at_most_25_000_written_words() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 40
    assert (
        sum(len(written(page.read_text()).split()) for page in pages) <= 25_000
    )  # the rest is generated


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
