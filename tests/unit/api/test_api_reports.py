"""What a reported step must be, and how the record keeps it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api import reported_step
from headstart_service.domain import StepState
from headstart_service.domain.errors import InvalidRequest
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.values.fragments import merged
from tests.support.ledger import pipeline_of

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


@pytest.mark.parametrize("digits", ["x", "", "3.0", "9007199254740994", "9" * 400, "1" * 5000])
@pytest.mark.parametrize("annotation", [int, Any])
def test_digits_of_another_number_are_refused(digits: str, annotation: Any) -> None:
    @step()
    async def number() -> annotation:
        return 1

    artifact = pb.Artifact(json={"number_value": 2.0**53}, large_integers={0: digits})
    pipeline = pipeline_of(number, name="numbers")
    assert set(told(request("number", artifact=artifact), pipeline)) == {"artifact.large_integers"}
    artifact.large_integers[0] = "9007199254740993"
    record = reported_step.step_record(
        reported_step.ReportedStep.of(request("number", artifact=artifact), 0.5), pipeline
    )
    assert pipeline.codec.decode("number", record.fragment) == 2**53 + 1


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


def nan() -> pb.ReportStepRequest:
    asked = artifact()
    asked.artifact.json.list_value.values.add().number_value = math.nan
    return asked


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (artifact(), "artifact"),
        (nan(), "artifact.json"),
        (artifact(tensor=pb.Tensor(shape=[2, 2], values=[1.0])), "artifact.tensor.values"),
        (artifact(tensor=pb.Tensor(shape=[-1], values=[])), "artifact.tensor.values"),
        (artifact(data=b"no list"), "artifact"),
        (artifact(tensor=pb.Tensor(shape=[1], values=[1.0])), "artifact"),
        (artifact(json={"struct_value": {"not": "a list"}}), "artifact"),
        (artifact(json={"list_value": ["a", 1]}), "artifact"),
        (request("words", bridging=pb.BridgingResults(haiku_clues=["x"])), "result"),
    ],
)
def test_what_is_no_artifact_is_reported(asked: pb.ReportStepRequest, field: str) -> None:
    assert set(told(asked, TEXT)) == {field}


def test_an_artifact_is_kept_as_a_worker_would_write_it() -> None:
    asked = artifact()
    asked.artifact.json.list_value.values.add().string_value = "a"
    record = reported_step.step_record(reported_step.ReportedStep.of(asked, 0.0), TEXT)
    assert TEXT.codec.decode("words", record.fragment) == ["a"]


def test_an_artifact_that_does_not_fit_the_annotation_is_reported_without_its_value() -> None:
    asked = artifact(json={"list_value": ["a", 77]})
    found = told(asked, TEXT)
    assert found["artifact"].startswith("must be list[str]: at 1: ")
    assert "77" not in found["artifact"]
    assert told(artifact(data=b"x"), TEXT) == {"artifact": "must be json, for list[str]"}
