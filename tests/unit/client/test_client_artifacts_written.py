"""What callers report is written as the service writes it, so that steps get the same types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart._messages.artifacts import artifact_from, artifact_to
from headstart.v1 import precompute_pb2 as pb
from headstart_service.values.artifacts import ArtifactCodec

ARRAYS = [
    np.arange(6).astype(dtype).reshape(2, 3)
    for dtype in ("float32", "float64", "int8", "int64", "uint32", "uint64", "complex128", "bool")
]


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
