"""Artifacts come back in a Python caller with the types that steps returned."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from annotated_types import Le
from pydantic import BaseModel, ValidationError

from headstart import PrecomputeClient, PrecomputeStatus, Results, Tensor
from headstart._messages.artifacts import artifact_to
from headstart._messages.convert import results_from
from headstart.v1 import precompute_pb2 as pb
from headstart_service.config.settings import Settings
from headstart_service.values.artifacts import ArtifactCodec
from tests.support.scripted_service import ScriptedService
from tests.unit.client.messages import run


class Score(BaseModel):
    word: str
    value: float


class Duck:
    """Has model_validate, and is no pydantic model."""

    def __init__(self, given: Any) -> None:
        self.given = given

    @classmethod
    def model_validate(cls, given: Any) -> Duck:
        return cls(given)


def results(**values: Any) -> Results:
    """What a caller gets of steps that returned these."""
    codec = ArtifactCodec()
    message = pb.GetResultsResponse(pipeline="p", status=pb.PRECOMPUTE_STATUS_COMPLETED)
    for step, value in values.items():
        message.MergeFromString(codec.encode(step, value))
        message.steps[step].state = pb.STEP_STATE_COMPLETED
    message.steps["slow"].state = pb.STEP_STATE_RUNNING
    return results_from(message)


@pytest.mark.parametrize(
    "value",
    [
        [1, 1.0, -0.0, 2**53, 2**53 + 1, 2.0**60, 10**300, 0.5],
        {"z": 1.0, "a": [2, {"y": 3.0, "b": 4}], "m": 5.0, "é": 6, "\U0001f422": 7.0, "｡": 8},
        None,
        True,
        "x",
        b"\x00",
        [],
        {},
    ],
)
def test_json_and_bytes_are_the_same_values_of_the_same_types(value: Any) -> None:
    given = results(step=value).artifact("step")
    assert given == value
    assert _types(given) == _types(value)


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _types(each) for name, each in value.items()}
    return [_types(each) for each in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("bool", bool),
        ("int8", int),
        ("uint16", int),
        ("int64", int),
        ("uint64", int),
        ("float16", float),
        ("float64", float),
        ("complex128", complex),
    ],
)
def test_a_tensor_has_its_type_and_becomes_numpys_array(dtype: str, kind: type) -> None:
    array = np.array([[0, 1], [1, 3]]).astype(dtype)
    tensor = results(step=array).artifact("step", as_type=Tensor)
    assert (tensor.shape, tensor.dtype) == ((2, 2), dtype)
    assert {type(value) for value in tensor.values} == {kind}
    for again in (tensor.to_numpy(), np.asarray(tensor)):
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)
    assert np.asarray(tensor, dtype=np.complex64).dtype == np.complex64
    np.testing.assert_array_equal(results(step=array).artifact("step", np.ndarray), array)


def test_a_double_and_a_large_integer_lose_nothing_in_a_tensor() -> None:
    given = results(pi=np.array([np.pi]), big=np.array([2**63 - 1, -(2**63)]))
    assert given.artifact("pi").values == (np.pi,)
    assert given.artifact("big").values == (2**63 - 1, -(2**63))


def test_an_array_is_the_tensors_own_bytes() -> None:
    tensor = results(step=np.arange(3.0)).artifact("step", as_type=Tensor)
    for array in (tensor.to_numpy(), np.asarray(tensor), np.array(tensor, copy=False)):
        assert np.shares_memory(array, np.frombuffer(tensor.data, np.uint8))
        assert not array.flags.writeable
    assert np.array(tensor).flags.writeable
    with pytest.raises(ValueError, match="copy"):
        np.array(tensor, dtype=np.float32, copy=False)


def test_a_tensor_is_made_without_numpy() -> None:
    assert Tensor.of([1, 2]) == Tensor(dtype="float32", shape=(2,), data=b"\0\0\x80?\0\0\0@")
    for dtype, values in (
        ("bool", (True, False)),
        ("complex64", (1j, 2 + 0j)),
        ("uint8", (0, 255)),
    ):
        made = Tensor.of(values, dtype, shape=(2, 1))
        assert made.values == values
        assert made.to_numpy().tolist() == [[values[0]], [values[1]]]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Tensor.of([256], "uint8"), "values: must be of uint8: "),
        (lambda: Tensor.of([0.5], "int8"), "values: must be of int8: "),
        (lambda: Tensor.of([1], "float"), "dtype: did you mean 'float64'"),
        (lambda: Tensor.of([1], "complex128", (2,)), "data: must be 32 bytes"),
        (lambda: Tensor(dtype="int8", shape=(-1,), data=b""), "shape: must have lengths"),
        (lambda: artifact_to(np.array(["x"])), "must be one of: bool"),
    ],
)
def test_what_makes_no_tensor_is_refused_by_its_field(make: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_a_masked_array_is_not_written_since_its_mask_would_be_lost() -> None:
    with pytest.raises(TypeError, match="mask"):
        artifact_to(np.ma.masked_array([1.0], mask=[True]))


def test_artifacts_become_models() -> None:
    one, other = {"word": "a", "value": 1.0}, {"word": "b", "value": 2}
    given = results(one=one, many=[one, other], named={"x": one})
    assert given.status is PrecomputeStatus.COMPLETED
    assert given.artifact("one", as_type=Score) == Score(word="a", value=1.0)
    assert [each.word for each in given.artifact("many", as_type=list[Score])] == ["a", "b"]
    assert given.artifact("named", as_type=dict[str, Score])["x"].value == 1.0
    assert given.artifact("one", as_type=Duck).given == one
    with pytest.raises(ValidationError):
        given.artifact("many", as_type=Score)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1, str, "is int, not str"),
        (True, int, "is bool, not int"),
        (True, float, "is bool, not float"),
        ([1], dict, "is list, not dict"),
    ],
)
def test_an_artifact_of_another_type_is_refused(value: Any, kind: type, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        results(step=value).artifact("step", as_type=kind)


def test_an_integer_serves_as_a_float() -> None:
    assert repr(results(step=1).artifact("step", as_type=float)) == "1.0"


def test_a_step_without_an_artifact_is_reported_with_its_state() -> None:
    given = results(step=1)
    with pytest.raises(KeyError, match="slow has no artifact: it is running"):
        given.artifact("slow")
    with pytest.raises(KeyError, match="it is no step of p"):
        given.artifact("other")
    with pytest.raises(KeyError, match=r"it is no step of p\w*; did you mean 'slow'\?"):
        given.artifact("slwo")


def test_a_completed_step_whose_value_was_left_out_is_reported_so() -> None:
    message = pb.GetResultsResponse(pipeline="p", status=pb.PRECOMPUTE_STATUS_COMPLETED)
    message.steps["card"].state = pb.STEP_STATE_COMPLETED
    with pytest.raises(KeyError, match="it is completed, and the call's `result_steps` left"):
        results_from(message).artifact("card")


def test_reading_a_tensor_loads_no_numpy() -> None:
    code = (
        "import sys; from headstart._messages.convert import results_from; "
        "from headstart.v1 import precompute_pb2 as pb; "
        "a = pb.Artifact(tensor=pb.Tensor(dtype='float64', shape=[1], data=bytes(6) + b'\\xf0?')); "
        "m = pb.GetResultsResponse(status=3, custom=pb.CustomResults(artifacts={'s': a})); "
        "print(results_from(m).artifact('s').values, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(1.0,)", "False"]


async def test_a_run_of_the_largest_size_reaches_a_client(service: ScriptedService) -> None:
    [most] = [m.le for m in Settings.model_fields["max_run_bytes"].metadata if isinstance(m, Le)]
    message = run(custom=pb.CustomResults())
    message.custom.artifacts["large"].json = json.dumps("x" * (int(most) - 2))
    # Beside the results there are reports, of hundreds of steps at most.
    message.custom.artifacts["reports"].json = json.dumps("x" * 2**20)
    service.on("GetResults", message)
    async with PrecomputeClient(service.address) as client:
        found = await client.get_results("game-1", timeout=60.0)
    assert len(found.artifact("large", str)) == most - 2
