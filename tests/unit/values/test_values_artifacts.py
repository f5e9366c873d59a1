from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import StepState
from headstart_service.domain.errors import StepFailed
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import PROTO_STATE, report_fragment
from headstart_service.values.kinds import AnyKind, ArrayKind, Kind, kind_of
from tests.support.requests import json_of

CODEC = ArtifactCodec()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0.5,
        "",
        "żółw 🐢",
        [],
        {},
        [1.0, [2.0, None]],
        {"a": {"b": ["c", False]}},
        b"",
        b"\x00\xff",
    ],
)
def test_json_and_bytes_come_back_as_they_were(value: Any) -> None:
    assert CODEC.decode("s", CODEC.encode("s", value)) == value


def test_tuples_come_back_as_lists_and_numbers_as_the_integers_or_floats_they_were() -> None:
    decoded = CODEC.decode("s", CODEC.encode("s", (1, 1.0, {"b": 2.0, "a": 3}, -0.0)))
    assert repr(decoded) == "[1, 1.0, {'b': 2.0, 'a': 3}, -0.0]"


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 10**640 - 1, 1e300, 2.0**60])
def test_numbers_beyond_what_doubles_tell_apart_come_back_exactly(number: float) -> None:
    decoded = CODEC.decode("s", CODEC.encode("s", ["x", number, 7]))
    assert decoded == ["x", number, 7]
    assert type(decoded[1]) is type(number)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4), (2, 3, 4)])
def test_arrays_come_back_with_shape_order_and_values(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    decoded = CODEC.decode("s", CODEC.encode("s", array))
    assert decoded.shape == shape
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, array)


def test_an_array_in_column_order_keeps_its_places() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3))
    np.testing.assert_array_equal(CODEC.decode("s", CODEC.encode("s", array)), array)


def test_special_floats_survive_in_arrays() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], dtype=np.float32)
    decoded = CODEC.decode("s", CODEC.encode("s", array))
    assert decoded.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        object(),
        10**640,
        "\ud800",
        {"\ud800": 1},
        {1: "x"},
        {"a": {1, 2}},
        float("nan"),
        [float("inf")],
        {"a": -float("inf")},
    ],
)
def test_what_is_not_json_is_refused_with_its_type_and_a_reason(value: Any) -> None:
    with pytest.raises(StepFailed, match=f"returned {type(value).__name__} that holds") as refused:
        CODEC.encode("odd", value)
    assert not refused.value.retry


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(StepFailed, match="nests too deeply"):
        CODEC.encode("odd", value)


def test_json_is_kept_as_compact_text_in_the_values_order() -> None:
    whole = pb.GetResultsResponse.FromString(CODEC.encode("s", {"ż": (1, 2.0), "a": [None, "\n"]}))
    assert whole.custom.artifacts["s"].json == '{"ż":[1,2.0],"a":[null,"\\n"]}'


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"in": inner}])
@pytest.mark.parametrize("annotation", [Any, list[Any] | dict[str, Any]])
def test_values_are_kept_up_to_the_depth_that_inputs_may_have(wrap: Any, annotation: Any) -> None:
    codec = ArtifactCodec({"s": kind_of(annotation)})
    deepest: Any = wrap(1)
    for _ in range(99):
        deepest = wrap(deepest)
    assert codec.decode("s", codec.encode("s", deepest)) == deepest
    with pytest.raises(StepFailed, match="nests too deeply: 100"):
        codec.encode("s", wrap(deepest))


def test_fragments_of_several_steps_merge_when_joined() -> None:
    joined = b"".join(
        (
            CODEC.encode("text", "hello"),
            report_fragment("text", StepState.COMPLETED, elapsed=0.25, attempts=2),
            CODEC.encode("data", b"\x01"),
            report_fragment("data", StepState.COMPLETED, attempts=1),
            report_fragment("other", StepState.FAILED, error="no luck"),
        )
    )
    whole = pb.GetResultsResponse.FromString(joined)
    assert set(whole.custom.artifacts) == {"text", "data"}
    assert json_of(whole, "text") == "hello"
    assert whole.custom.artifacts["data"].data == b"\x01"
    assert set(whole.steps) == {"text", "data", "other"}
    assert whole.steps["text"].elapsed.ToTimedelta().total_seconds() == 0.25
    assert whole.steps["text"].attempts == 2
    assert whole.steps["other"].error == "no luck"
    assert not whole.steps["other"].HasField("elapsed")


def test_a_later_report_of_a_step_replaces_an_earlier_one_whole() -> None:
    joined = report_fragment("s", StepState.FAILED, error="first", attempts=3) + report_fragment(
        "s", StepState.RUNNING
    )
    report = pb.GetResultsResponse.FromString(joined).steps["s"]
    assert report == pb.StepReport(state=pb.STEP_STATE_RUNNING)


def test_every_state_has_its_wire_value() -> None:
    assert set(PROTO_STATE) == set(StepState)
    assert set(PROTO_STATE.values()) == set(pb.StepState.values()) - {0}


def test_one_artifact_can_be_decoded_out_of_a_fragment_with_its_report() -> None:
    fragment = CODEC.encode("s", {"x": 1}) + report_fragment("s", StepState.COMPLETED)
    assert CODEC.decode("s", fragment) == {"x": 1.0}


@pytest.mark.parametrize("kind", [AnyKind(), ArrayKind("")])
def test_a_masked_array_is_refused_since_its_mask_would_be_lost(kind: Kind) -> None:
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    with pytest.raises(StepFailed, match="mask"):
        ArtifactCodec({"s": kind}).encode("s", masked)
