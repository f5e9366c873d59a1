"""What callers report is written as the service writes it, so that steps get the same types."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import BaseModel

from headstart._messages.artifacts import artifact_from, artifact_mistakes, artifact_to
from headstart._messages.tensors import DTYPES
from headstart.v1 import precompute_pb2 as pb
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.kinds import kind_of
from tests.support.any_json import VALUES


class Point(BaseModel):
    x: int
    y: float


ARRAYS = [np.arange(6).astype(dtype).reshape(2, 3) for dtype in sorted(DTYPES)]


@pytest.mark.parametrize(
    "value",
    [b"\x00\xff", "text", True, None, 3, 3.0, 2**70, [1, 2.0, [None]], {"b": 1.0, "a": [2]}],
    ids=repr,
)
def test_json_and_bytes_are_what_a_step_would_have_given(value: Any) -> None:
    message = artifact_to(value)
    assert message == written_by_the_service(value)
    back = artifact_from(message)
    assert back == value
    assert type(back) is type(value)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_json_is_exact_from_a_step_and_from_a_caller(value: Any) -> None:
    """`repr` tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    message = artifact_to(value)
    assert list(artifact_mistakes(message)) == []
    assert repr(artifact_from(message)) == repr(value)
    assert repr(artifact_from(written_by_the_service(value))) == repr(value)
    for annotation in (Any, None | bool | int | float | str | list[Any] | dict[str, Any]):
        kind = kind_of(annotation)
        assert kind.misfit(message) == ""
        assert repr(kind.read(message)) == repr(value)


def test_models_are_written_as_their_fields_and_names_as_text() -> None:
    assert artifact_to([Point(x=1, y=2.0)]).json == '[{"x":1,"y":2.0}]'
    assert artifact_to({1: "a", "b": MappingProxyType({"c": None})}).json == (
        '{"1":"a","b":{"c":null}}'
    )


@pytest.mark.parametrize(
    "value", [{1}, object(), float("nan"), [float("-inf")], "\ud800", {(1,): 2}]
)
def test_what_is_not_json_is_not_written(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        artifact_to(value)


def test_a_value_without_end_is_not_written() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(ValueError, match=r"Circular|must nest at most 100"):
            artifact_to(value)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_arrays_come_back_with_their_type_and_shape(array: Any) -> None:
    results = pb.CustomResults(artifacts={"step": artifact_to(array)})
    fragment = pb.GetResultsResponse(custom=results).SerializeToString()
    back = ArtifactCodec().decode("step", fragment)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def written_by_the_service(value: Any) -> pb.Artifact:
    fragment = ArtifactCodec().encode("step", value)
    return pb.GetResultsResponse.FromString(fragment).custom.artifacts["step"]
