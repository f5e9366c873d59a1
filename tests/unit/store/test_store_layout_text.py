"""What a layout's text says, and what an operator is told of one that differs."""

from __future__ import annotations

import pytest

from headstart_service.store.layout import Layout, difference

MOVING = Layout(4, target=6)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Layout(4), "format=2 partitions=4"),
        (Layout(1, format=7), "format=7 partitions=1"),
        (MOVING, "format=2 partitions=4 moving-to=6"),
    ],
)
def test_a_layout_is_what_its_text_says(layout: Layout, text: str) -> None:
    assert str(layout) == text
    assert Layout.parse(text) == layout


@pytest.mark.parametrize(
    "text", ["", "nonsense", "format=2", "partitions=4", "format=x partitions=1"]
)
def test_any_other_text_is_no_layout(text: str) -> None:
    with pytest.raises(ValueError, match=r"no|not|invalid|dictionary"):
        Layout.parse(text)
    told = difference(text, Layout(4))
    assert "which this version cannot read: it reads format=2 partitions=4" in told


def test_a_move_ends_in_its_target() -> None:
    assert MOVING.final == Layout(6)
    assert Layout(4).final == Layout(4)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            MOVING,
            (
                "the store is being moved from 4 to 6 partitions, this process has "
                "HEADSTART_PARTITIONS=2: wait for the move; if it was killed, finish it with "
                "`headstart repartition --to 6`"
            ),
        ),
        (
            Layout(4),
            (
                "the store has 4 partitions, this process has HEADSTART_PARTITIONS=2: set "
                "HEADSTART_PARTITIONS=4, or end all processes of the store and move it with "
                "`headstart repartition --to 2`"
            ),
        ),
        (
            Layout(4, format=3, target=6),
            (
                "the store's format is 3, this version's 2: run the version that wrote the store, or "
                "empty the store"
            ),
        ),
    ],
)
def test_a_layout_that_differs_is_told_with_the_cure(found: Layout, told: str) -> None:
    assert difference(str(found), Layout(2)) == told
