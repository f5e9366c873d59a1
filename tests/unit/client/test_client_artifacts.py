"""Artifacts come back in a Python caller with the types that steps returned."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from annotated_types import Le
from pydantic import BaseModel, ValidationError

from headstart import PrecomputeClient, PrecomputeStatus, Results, Tensor
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


def test_a_tensor_of_a_server_that_sends_no_type_is_of_32_bit_floats() -> None:
    artifact = pb.Artifact(tensor=pb.Tensor(shape=[2], values=[1.0, 0.5]))
    message = pb.GetResultsResponse(
        status=pb.PRECOMPUTE_STATUS_COMPLETED, custom=pb.CustomResults(artifacts={"s": artifact})
    )
    assert results_from(message).artifact("s") == Tensor(shape=(2,), values=(1.0, 0.5))


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


def test_reading_a_tensor_loads_no_numpy() -> None:
    code = (
        "import sys; from headstart._messages.convert import results_from; "
        "from headstart.v1 import precompute_pb2 as pb; "
        "a = pb.Artifact(tensor=pb.Tensor(shape=[1], doubles=[1.0], dtype='float64')); "
        "m = pb.GetResultsResponse(status=3, custom=pb.CustomResults(artifacts={'s': a})); "
        "print(results_from(m).artifact('s').values, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(1.0,)", "False"]


async def test_a_run_of_the_largest_size_reaches_a_client(service: ScriptedService) -> None:
    [most] = [m.le for m in Settings.model_fields["max_run_bytes"].metadata if isinstance(m, Le)]
    message = run(custom=pb.CustomResults())
    message.custom.artifacts["large"].json.string_value = "x" * int(most)
    # Beside the results there are reports, of hundreds of steps at most.
    message.custom.artifacts["reports"].json.string_value = "x" * 2**20
    service.on("GetResults", message)
    async with PrecomputeClient(service.address) as client:
        found = await client.get_results("game-1", timeout=60.0)
    assert len(found.artifact("large", str)) == most
