"""What a reported step must be, and how the record keeps it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart._messages.artifacts import artifact_to
from headstart._messages.inputs import InputsError, read_inputs
from headstart.v1 import precompute_pb2 as pb
from headstart_service.api import reported_step
from headstart_service.domain import StepState
from headstart_service.domain.errors import InvalidRequest
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.values.fragments import merged
from tests.support.ledger import pipeline_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW = pb.Embedding(values=[1.0, 0.0])
GOOD: dict[str, dict[str, Any]] = {
    "embed_endpoints": {
        "anchor_embedding": [1.0, 0.0],
        "target_embedding": [0.0, 1.0],
        "embedding_model": "model",
    },
    "lexical_bridge": {"lexical_bridge": ["tide", "tree"], "lexical_embeddings": [ROW, ROW]},
    "null_samples": {"null_samples": [-0.5, 0.25]},
    "haiku_bridge": {"haiku_clues": ["tide"]},
    "haiku_embeddings": {"haiku_embeddings": [ROW]},
}


@step()
async def words() -> list[str]:
    return []


TEXT = pipeline_of(words, name="text")


def request(step: str, **fields: Any) -> pb.ReportStepRequest:
    return pb.ReportStepRequest(key="k", revision=1, step=step, **fields)


def game(step: str, **changes: Any) -> pb.ReportStepRequest:
    fields = GOOD.get(step, {}) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    return request(step, bridging=pb.BridgingResults(**kept))


def told(asked: pb.ReportStepRequest, pipeline: Pipeline = BRIDGING) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        reported_step.step_record(reported_step.ReportedStep.of(asked, 0.5), pipeline)
    return {v.field: v.description for v in caught.value.violations}


@pytest.mark.parametrize("name", GOOD)
def test_each_bridging_step_can_be_reported_and_is_kept_as_its_own_fields(name: str) -> None:
    record = reported_step.step_record(reported_step.ReportedStep.of(game(name), 0.5), BRIDGING)
    assert (record.name, record.state) == (name, StepState.COMPLETED)
    whole = merged(record.fragment)
    assert whole is not None
    answer = pb.GetResultsResponse.FromString(whole)
    assert {field.name for field, _ in answer.bridging.ListFields()} == set(GOOD[name])
    report = answer.steps[name]
    assert report.origin == pb.STEP_ORIGIN_REPORTED
    assert (report.state, report.elapsed.nanos) == (pb.STEP_STATE_COMPLETED, 500_000_000)
    assert BRIDGING.codec.decode(name, record.fragment) is not None


def test_all_steps_of_bridging_are_known() -> None:
    assert set(GOOD) == set(BRIDGING.by_name)


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        (request("", artifact=pb.Artifact(data=b"")), "step", "must be set"),
        (request("words"), "result", "must be set: bridging or artifact"),
        (
            pb.ReportStepRequest(step="words", artifact=pb.Artifact(data=b"")),
            "revision",
            "must be 1 or more, is 0",
        ),
        (
            request("words", artifact=pb.Artifact(data=bytes(1 << 20))),
            "artifact",
            "must be at most 1048576 bytes, is 1048580",
        ),
    ],
)
def test_what_is_wrong_in_any_run_is_reported(
    asked: pb.ReportStepRequest, field: str, rule: str
) -> None:
    assert {(v.field, v.description) for v in reported_step.violations_of(asked)} == {(field, rule)}


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        (game("nothing"), "step", "must be one of: embed_endpoints, haiku_bridge"),
        (
            request("null_samples", artifact=pb.Artifact(data=b"x")),
            "result",
            "must be bridging for a run of bridging, is artifact",
        ),
        (game("embed_endpoints", embedding_model=None), "bridging.embedding_model", "must be set"),
        (game("null_samples", haiku_clues=["x"]), "bridging.haiku_clues", "must be empty for step"),
        (game("haiku_bridge", haiku_clues=None), "bridging.haiku_clues", "must be set for step"),
        (game("null_samples", null_samples=[0.5, 0.25]), "bridging.null_samples", "ascending"),
        (game("null_samples", null_samples=[math.nan]), "bridging.null_samples", "finite"),
        (
            game("embed_endpoints", target_embedding=[1.0]),
            "bridging.target_embedding",
            "must be 2 finite numbers",
        ),
        (
            game("embed_endpoints", anchor_embedding=[math.inf, 0.0]),
            "bridging.anchor_embedding",
            "must be 2 finite numbers",
        ),
        (
            game("lexical_bridge", lexical_bridge=["tide"]),
            "bridging.lexical_embeddings",
            "must be one for each of 1 words, are 2",
        ),
        (
            game("haiku_embeddings", haiku_embeddings=[ROW, pb.Embedding(values=[1.0])]),
            "bridging.haiku_embeddings[1].values",
            "must be 2 finite numbers",
        ),
    ],
)
def test_what_is_no_result_of_that_bridging_step_is_reported(
    asked: pb.ReportStepRequest, field: str, rule: str
) -> None:
    found = told(asked)
    assert set(found) == {field}
    assert rule in found[field]


def artifact(**fields: Any) -> pb.ReportStepRequest:
    return request("words", artifact=pb.Artifact(**fields))


def tensor(dtype: str, shape: list[int], data: bytes) -> pb.ReportStepRequest:
    return artifact(tensor=pb.Tensor(dtype=dtype, shape=shape, data=data))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (artifact(), "artifact"),
        (artifact(data=b"no list"), "artifact"),
        (tensor("int8", [1], b"1"), "artifact"),
        (artifact(json='{"not":"a list"}'), "artifact"),
        (artifact(json='["a",1]'), "artifact"),
        (request("words", bridging=pb.BridgingResults(haiku_clues=["x"])), "result"),
    ],
)
def test_what_is_no_artifact_is_reported(asked: pb.ReportStepRequest, field: str) -> None:
    assert set(told(asked, TEXT)) == {field}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be JSON: Expecting value: line 1 column 1 (char 0)"),
        ("['a']", "must be JSON: Expecting value"),
        ("[] []", "must be JSON: Extra data"),
        ('["a"', "must be JSON: Expecting ',' delimiter"),
        ("[NaN]", "must not hold NaN: JSON has no such number"),
        ("[1e400]", "numbers must be within a double's range, one is '1e400'"),
        ("9" * 641, "integers must have at most 640 digits, one is '9"),
        ('{"a":1,"a":1}', "must have each name once in an object, has 'a' twice"),
        (r'"\ud800"', r"must be Unicode text, has a lone surrogate: '\ud800'"),
        ("[" * 101 + "]" * 101, "must nest at most 100 objects and arrays"),
        ("[" * 500_000, "must nest at most 100 objects and arrays"),
    ],
)
def test_text_that_is_no_json_is_refused_as_that_of_inputs_is(text: str, rule: str) -> None:
    [(field, description)] = told(artifact(json=text), TEXT).items()
    assert field == "artifact.json"
    assert description.startswith(rule)
    with pytest.raises(InputsError) as refused:
        read_inputs(text)
    assert refused.value.rules == [("custom.inputs_json", description)]


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        (tensor("", [1], b"1234"), "dtype", "must be one of: bool, complex128, "),
        (tensor("Float32", [1], b"1234"), "dtype", "did you mean 'float32'? must be one of: "),
        (
            tensor("float32", [2, 2], b"1234"),
            "data",
            "must be 16 bytes, for float32 of shape [2, 2], is 4",
        ),
        (tensor("float64", [], b"1234"), "data", "must be 8 bytes, for float64 of shape [], is 4"),
        (tensor("int8", [2, -1], b""), "shape", "must have lengths of 0 or more, has -1"),
        (tensor("int8", [0, 2**62, 2], b""), "shape", "must mean at most 2^63 - 1 bytes"),
        (tensor("int8", [2**62] * 64, b""), "shape", "must mean at most 2^63 - 1 bytes"),
        (tensor("int8", [1] * 65, b"1"), "shape", "must have at most 64 dimensions, has 65"),
        (tensor("bool", [2], b"\1\2"), "data", "must be bytes of 0 or 1, for bool"),
    ],
)
def test_what_is_no_tensor_is_refused_by_its_field(
    asked: pb.ReportStepRequest, field: str, rule: str
) -> None:
    [(path, description)] = told(asked, TEXT).items()
    assert path == f"artifact.tensor.{field}"
    assert description.startswith(rule)


def test_a_tensor_of_another_type_than_the_steps_is_refused() -> None:
    @step()
    async def vector() -> NDArray[np.float32]:
        return np.zeros(1, np.float32)

    pipeline = pipeline_of(vector, name="vectors")
    for array, rule in (
        (np.zeros(2, np.float64), "must be a tensor of float32, is of float64"),
        (None, "must be a tensor, for ndarray[float32]"),
    ):
        assert told(request("vector", artifact=artifact_to(array)), pipeline) == {"artifact": rule}
    good = request("vector", artifact=artifact_to(np.ones(2, np.float32)))
    record = reported_step.step_record(reported_step.ReportedStep.of(good, 0.5), pipeline)
    assert pipeline.codec.decode("vector", record.fragment).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("number", [2**53 + 1, -(10**640) + 1, 3.0, 1e300, -0.0])
@pytest.mark.parametrize("annotation", [int | float, Any])
def test_a_reported_number_is_kept_exactly(number: float, annotation: Any) -> None:
    @step()
    async def given() -> annotation:
        return 1

    pipeline = pipeline_of(given, name="numbers")
    asked = request("given", artifact=pb.Artifact(json=repr(number)))
    record = reported_step.step_record(reported_step.ReportedStep.of(asked, 0.5), pipeline)
    assert repr(pipeline.codec.decode("given", record.fragment)) == repr(number)


def test_an_artifact_is_kept_as_a_worker_would_write_it() -> None:
    asked = artifact(json=' [ "a" ,"\\u017c" ]\n')
    record = reported_step.step_record(reported_step.ReportedStep.of(asked, 0.0), TEXT)
    assert record.fragment.startswith(TEXT.codec.encode("words", ["a", "ż"]))
    assert TEXT.codec.decode("words", record.fragment) == ["a", "ż"]


def test_an_artifact_that_does_not_fit_the_annotation_is_reported_without_its_value() -> None:
    asked = artifact(json='["a",77]')
    found = told(asked, TEXT)
    assert found["artifact"].startswith("must be list[str]: at 1: ")
    assert "77" not in found["artifact"]
    assert told(artifact(data=b"x"), TEXT) == {"artifact": "must be json, for list[str]"}
