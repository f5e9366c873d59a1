"""What a layout's text says, and what an operator is told of one that differs."""

from __future__ import annotations

import pytest

from headstart_service.domain import RunKey
from headstart_service.store.keys import (
    FIXED,
    Installation,
    PartitionKeys,
    from_member,
    member,
    memo_partition,
    partition_of,
)
from headstart_service.store.layout import Layout, difference

MOVING = Layout(4, target=6)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Layout(4), "format=4 partitions=4"),
        (Layout(1, format=7), "format=7 partitions=1"),
        (MOVING, "format=4 partitions=4 moving-to=6"),
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
    assert "which this version cannot read: it reads format=4 partitions=4" in told


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
            Layout(4, format=5, target=6),
            (
                "the store's format is 5, this version's 4: run the version that wrote the store, or "
                "empty the store"
            ),
        ),
    ],
)
def test_a_layout_that_differs_is_reported_with_the_cure(found: Layout, told: str) -> None:
    assert difference(str(found), Layout(2)) == told


def test_where_a_run_and_a_memo_are_kept_never_changes() -> None:
    """Else a store would have to be moved."""
    names = [f"k{i}" for i in range(12)]
    for place in (lambda name: partition_of(RunKey("games", name), 4), _memo):
        assert [place(name) for name in names] == [3, 1, 3, 1, 2, 0, 2, 0, 1, 3, 3, 1]
    assert {memo_partition("games", name, 3) for name in names} == {0, 1, 2}
    assert partition_of(RunKey("games", "a:b"), 1000) != partition_of(RunKey("games", "a"), 1000)


def _memo(digest: str) -> int:
    return memo_partition("games", digest, 4)


@pytest.mark.parametrize("key", ["k", "a:b", "", ":", "ä b"])
def test_a_member_is_the_run_that_it_names(key: str) -> None:
    assert member(RunKey("games", key)) == f"games:{key}"
    assert from_member(f"games:{key}") == RunKey("games", key)


def test_every_key_of_a_partition_is_spelled_once() -> None:
    keys = PartitionKeys(3, Installation("shop", 7))
    assert keys.events == "shop:{3}:events:7"
    names = ("jobs", "expiry", "tickets", "layout", "workers", "processes", "memos")
    assert [getattr(keys, name) for name in names] == [f"shop:{{3}}:{name}" for name in names]
    assert keys.memo_prefix == "shop:{3}:memo:"
    assert keys.record(RunKey("games", "k")) == "shop:{3}:run:games:k"
    assert keys.fixed == tuple(f"shop:{{3}}:{name}" for name in FIXED)
    assert PartitionKeys(0).events == "headstart:{0}:events:0"
