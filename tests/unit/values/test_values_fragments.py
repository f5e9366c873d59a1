"""An answer has one `results` field: of several, protobuf.js keeps the last alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import StepState
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import merged, report_fragment

CODEC = ArtifactCodec()
REPORT = report_fragment("x", StepState.COMPLETED, elapsed=0.5, attempts=1)


def message(data: bytes | None) -> pb.GetResultsResponse:
    assert data is not None
    return pb.GetResultsResponse.FromString(data)


@given(st.lists(st.binary(max_size=300)))
def test_many_steps_results_become_one_field_with_the_same_meaning(values: list[bytes]):
    pieces = [REPORT + CODEC.encode(f"s{i}", value) for i, value in enumerate(values)]
    joined = b"".join(pieces)
    expected = message(joined)
    for report in expected.steps.values():
        report.origin = pb.STEP_ORIGIN_COMPUTED
    assert message(merged(joined)) == expected
    assert len(message(merged(joined)).custom.artifacts) == len(values)


def test_there_is_one_field_where_there_were_three():
    pieces = b"".join(CODEC.encode(name, b"") for name in ("a", "b", "c"))
    custom = 13 << 3 | 2
    length = len(pieces) - 3 * 2
    assert merged(pieces) in {
        bytes((custom, length)) + b"".join(pieces_of(names))
        for names in itertools.permutations("abc")
    }


def pieces_of(names: tuple[str, ...]) -> list[bytes]:
    """The inside of each step's `results` field."""
    return [CODEC.encode(name, b"")[2:] for name in names]


def test_what_cannot_be_read_is_reported():
    assert merged(CODEC.encode("a", b"1")[:-1]) is None


def test_large_values_keep_their_meaning_and_are_checked_too():
    values = {"blob": b"x" * 200_000, "small": b"y", "text": ["ż" * 1000] * 100, "none": None}
    steps = [
        report_fragment(name, StepState.COMPLETED, started_us=5) + CODEC.encode(name, value)
        for name, value in values.items()
    ]
    joined = b"".join(steps)
    expected = message(joined)
    for report in expected.steps.values():
        report.origin = pb.STEP_ORIGIN_KEPT
    whole = merged(joined, created_us=10)
    assert message(whole) == expected
    for damaged in (
        joined[:-1],
        joined[1:],
        joined + b"\xff",
        joined.replace(b"blob", b"\xff\xff\xff\xff"),
        joined.replace("żż".encode(), b"\xff\xff\xff\xff", 1),
    ):
        assert merged(damaged) is None


@pytest.mark.parametrize("size", [1, 100_000])
def test_items_stand_in_order_each_once_and_whole(size: int):
    """A large hash of Redis has no order, and a repeated chunk may hold items again."""
    places = [3, 1, 2, 1, 0]
    pieces = [item_piece(index, "x" * size) for index in places]
    joined = b"".join([*pieces[:2], REPORT + CODEC.encode("x", b"y" * size), *pieces[2:]])
    found = message(merged(joined))
    assert [item.index for item in found.items] == [0, 1, 2, 3]
    assert {item.json for item in found.items} == {"x" * size}
    assert found.custom.artifacts["x"].data == b"y" * size


def item_piece(index: int, json: str) -> bytes:
    item = pb.ItemResult(step="rates", index=index, json=json)
    return pb.GetResultsResponse(items=[item]).SerializeToString()
