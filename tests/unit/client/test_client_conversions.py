"""What PrecomputeClient makes of the service's answers."""

import json
from datetime import timedelta
from typing import Any

import pytest

from headstart import (
    BridgingResults,
    Cancelled,
    ExecutorKind,
    FailureReason,
    Fate,
    PendingReason,
    PipelineDescription,
    PrecomputeClient,
    Results,
    ServiceError,
    Stats,
    Status,
    StepDescription,
    StepEstimate,
    StepOrigin,
    StepReport,
    Tensor,
)
from headstart._messages.artifacts import artifact_to
from headstart.v1 import precompute_pb2 as pb
from headstart_service.commands.operator.describing import described
from tests.unit.client.messages import CREATED, report, run


async def test_a_whole_bridging_run_is_converted(service: Any) -> None:
    bridging = pb.BridgingResults(
        anchor_embedding=[0.5, 0.25],
        target_embedding=[0.25, 0.5],
        haiku_clues=["tide", "pine"],
        haiku_embeddings=[pb.Embedding(values=[1, 0]), pb.Embedding(values=[0, 1])],
        lexical_bridge=["shore", "grove"],
        lexical_embeddings=[pb.Embedding(values=[0, 1]), pb.Embedding(values=[1, 0])],
        null_samples=[0.1, 0.2],
        embedding_model="all-MiniLM-L6-v2",
    )
    message = run(
        bridging=bridging,
        error="none really",
        steps={"null_samples": report(), "embed_endpoints": report()},
    )
    message.started_at.FromDatetime(CREATED + timedelta(seconds=1))
    service.on("GetResults", message)

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")

    completed = StepReport(
        state="completed", error=None, elapsed=timedelta(seconds=1.5), attempts=1
    )
    assert results == Results(
        namespace="default",
        key="game-1",
        pipeline="bridging",
        revision=3,
        status="completed",
        created_at=CREATED,
        started_at=CREATED + timedelta(seconds=1),
        completed_at=None,
        expires_at=None,
        error="none really",
        steps={"embed_endpoints": completed, "null_samples": completed},
        bridging=BridgingResults(
            anchor_embedding=(0.5, 0.25),
            target_embedding=(0.25, 0.5),
            haiku_clues=("tide", "pine"),
            haiku_embeddings=((1.0, 0.0), (0.0, 1.0)),
            lexical_bridge=("shore", "grove"),
            lexical_embeddings=((0.0, 1.0), (1.0, 0.0)),
            null_samples=(0.1, 0.2),
            embedding_model="all-MiniLM-L6-v2",
        ),
        custom=None,
    )
    assert list(results.steps) == ["embed_endpoints", "null_samples"]


async def test_a_part_is_none_until_its_step_has_completed(service: Any) -> None:
    steps = {
        "embed_endpoints": report(),
        "haiku_bridge": report(pb.STEP_STATE_FAILED, "no API key"),
        "haiku_embeddings": report(pb.STEP_STATE_SKIPPED, "haiku_bridge failed"),
        "lexical_bridge": report(),
        "null_samples": report(pb.STEP_STATE_RUNNING),
    }
    partial = pb.BridgingResults(anchor_embedding=[1, 0], target_embedding=[0, 1])
    service.on("GetResults", run(pb.PRECOMPUTE_STATUS_IN_PROGRESS, bridging=partial, steps=steps))

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")

    assert results.missing == ("haiku_bridge", "haiku_embeddings", "null_samples")
    assert results.steps["haiku_bridge"].error == "no API key"
    assert results.steps["null_samples"].elapsed is None
    assert not results.status.ended
    parts = results.bridging
    assert parts is not None
    assert parts.anchor_embedding == (1.0, 0.0)
    assert (parts.haiku_clues, parts.haiku_embeddings, parts.null_samples) == (None, None, None)
    # Completed, but with nothing found: an empty part, not a missing one.
    assert (parts.lexical_bridge, parts.lexical_embeddings) == ((), ())


async def test_a_bridging_run_without_any_result_has_all_parts_missing(service: Any) -> None:
    service.on("GetResults", run(pb.PRECOMPUTE_STATUS_PENDING))

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")

    assert results.bridging is not None
    assert results.bridging.anchor_embedding is None
    assert results.custom is None


async def test_custom_results_are_plain_values(service: Any) -> None:
    text = '{"share":0.5,"count":3,"tags":["a",null,true],"o":{}}'
    tensor = Tensor.of([1.5, 2.5], shape=(2, 1))
    artifacts = {
        "json": pb.Artifact(json=text),
        "tensor": artifact_to(tensor),
        "data": pb.Artifact(data=b"\x00\xff"),
        "nothing": pb.Artifact(),
    }
    message = run(custom=pb.CustomResults(artifacts=artifacts))
    message.pipeline = "words"
    service.on("GetResults", message)

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")

    assert results.bridging is None
    assert results.custom == {
        "data": b"\x00\xff",
        "json": {"count": 3, "share": 0.5, "tags": ["a", None, True], "o": {}},
        "nothing": None,
        "tensor": tensor,
    }
    assert json.dumps(results.custom["json"], separators=(",", ":")) == text


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        (pb.Artifact(json="{"), "json: must be JSON: "),
        (pb.Artifact(tensor=pb.Tensor()), "dtype: must be one of: bool, complex128, "),
        (
            pb.Artifact(tensor=pb.Tensor(dtype="float32", shape=[2], data=b"1234")),
            r"data: must be 8 bytes, for float32 of shape \[2\], is 4",
        ),
    ],
)
async def test_an_artifact_that_cannot_be_read_is_an_error_that_names_step_and_field(
    service: Any, artifact: pb.Artifact, reason: str
) -> None:
    service.on("GetResults", run(custom=pb.CustomResults(artifacts={"odd": artifact})))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceError, match=f"of step odd that cannot be read: {reason}"):
            await client.get_results("game-1")


async def test_a_status_from_the_future_is_an_error_that_names_it(service: Any) -> None:
    service.on("GetResults", run(99))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceError, match="run status 99, which this client is too old"):
            await client.get_results("game-1")


async def test_get_status_and_cancel_are_converted(service: Any) -> None:
    service.on(
        "GetStatus",
        pb.GetStatusResponse(
            namespace="default",
            key="game-1",
            pipeline="bridging",
            revision=1,
            status=pb.PRECOMPUTE_STATUS_FAILED,
            error="embed_endpoints failed",
            steps={"embed_endpoints": pb.STEP_STATE_FAILED},
        ),
    )
    service.on(
        "CancelPrecompute",
        pb.CancelPrecomputeResponse(
            namespace="default",
            key="game-1",
            cancelled=True,
            status=pb.PRECOMPUTE_STATUS_CANCELLED,
            revision=1,
        ),
    )

    async with PrecomputeClient(service.address) as client:
        status = await client.get_status("game-1")
        cancelled = await client.cancel("game-1")

    assert status == Status(
        namespace="default",
        key="game-1",
        pipeline="bridging",
        revision=1,
        status="failed",
        created_at=None,
        started_at=None,
        completed_at=None,
        expires_at=None,
        error="embed_endpoints failed",
        steps={"embed_endpoints": "failed"},
    )
    assert cancelled == Cancelled(
        namespace="default", key="game-1", cancelled=True, status="cancelled", revision=1
    )


@pytest.mark.parametrize(
    ("number", "origin"),
    [
        (pb.STEP_ORIGIN_UNSPECIFIED, None),
        (pb.STEP_ORIGIN_COMPUTED, StepOrigin.COMPUTED),
        (pb.STEP_ORIGIN_KEPT, StepOrigin.KEPT),
        (pb.STEP_ORIGIN_MEMOISED, StepOrigin.MEMOISED),
        (pb.STEP_ORIGIN_REPORTED, StepOrigin.REPORTED),
    ],
)
async def test_where_a_steps_result_comes_from_is_converted(
    service: Any, number: pb.StepOrigin.ValueType, origin: StepOrigin | None
) -> None:
    told = report()
    told.origin = number
    service.on("GetResults", run(steps={"count": told}))
    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")
    assert results.steps["count"].origin is origin


async def test_pipelines_and_stats_are_converted(service: Any) -> None:
    pipeline = pb.PipelineDescription(name="words", version="2", description="Counts words.")
    pipeline.input_schema.update({"type": "object"})
    step = pipeline.steps.add(
        name="count",
        needs=["split"],
        required=True,
        max_attempts=3,
        runs_on=pb.EXECUTOR_KIND_THREAD,
    )
    step.timeout.FromSeconds(30)
    step.version, step.memo = "7", True
    step.output_schema.update({"type": "integer"})
    pipeline.steps.add(name="split")
    service.on("ListPipelines", pb.ListPipelinesResponse(pipelines=[pipeline]))
    service.on(
        "GetStats",
        pb.GetStatsResponse(
            total_cached=50,
            active_tasks=3,
            status_counts={"in_progress": 3, "completed": 47},
            queued_jobs=1,
            max_cached=1000,
        ),
    )

    async with PrecomputeClient(service.address) as client:
        pipelines = await client.list_pipelines()
        stats = await client.get_stats()

    assert pipelines == (
        PipelineDescription(
            name="words",
            version="2",
            description="Counts words.",
            steps=(
                StepDescription(
                    name="count",
                    needs=("split",),
                    required=True,
                    timeout=timedelta(seconds=30),
                    max_attempts=3,
                    version="7",
                    memo=True,
                    runs_on=ExecutorKind.THREAD,
                    output_schema={"type": "integer"},
                ),
                StepDescription(
                    name="split", needs=(), required=False, timeout=None, max_attempts=0
                ),
            ),
            input_schema={"type": "object"},
        ),
    )
    assert stats == Stats(
        total_cached=50,
        active_tasks=3,
        status_counts={"completed": 47, "in_progress": 3},
        queued_jobs=1,
        max_cached=1000,
    )


async def test_a_step_that_is_missing_has_when_it_is_expected(service: Any) -> None:
    message = pb.GetResultsResponse(key="k", pipeline="chain", status=pb.PRECOMPUTE_STATUS_PENDING)
    message.steps["one"].state = pb.STEP_STATE_PENDING
    message.steps["one"].estimate.p50.FromMilliseconds(1500)
    message.steps["one"].estimate.p90.FromMilliseconds(4000)
    message.steps["two"].state = pb.STEP_STATE_PENDING
    service.on("GetResults", message)

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("k")

    assert results.steps["one"].estimate == StepEstimate(
        p50=timedelta(seconds=1.5), p90=timedelta(seconds=4)
    )
    assert results.steps["two"].estimate is None
    text = described(results)
    assert "~1.5 s, p90 4.0 s" in text


async def test_reasons_are_converted(service: Any) -> None:
    told = report()
    told.state, told.error = pb.STEP_STATE_FAILED, "took longer than 1 s"
    told.failure_reason = pb.FAILURE_REASON_TIMED_OUT
    answer = run(steps={"count": told})
    answer.failure_reason = pb.FAILURE_REASON_CANCELLED
    answer.pending_reason = pb.PENDING_REASON_NO_WORKER_FOR_VERSION
    service.on("GetResults", answer)
    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")
    assert results.steps["count"].failure_reason is FailureReason.TIMED_OUT
    assert results.failure_reason is FailureReason.CANCELLED
    assert results.pending_reason is PendingReason.NO_WORKER_FOR_VERSION


async def test_a_reason_that_this_client_is_too_old_to_know_is_none(service: Any) -> None:
    told = report()
    told.failure_reason = 999  # type: ignore[assignment]  # of a newer service
    answer = run(steps={"count": told})
    answer.failure_reason = answer.pending_reason = 999  # type: ignore[assignment]  # likewise
    service.on("GetResults", answer)
    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")
    assert results.steps["count"].failure_reason is None
    assert (results.failure_reason, results.pending_reason) == (None, None)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FailureReason, pb.FailureReason),
        (PendingReason, pb.PendingReason),
        (StepOrigin, pb.StepOrigin),
        (ExecutorKind, pb.ExecutorKind),
        (Fate, pb.Fate),
    ],
)
def test_every_value_of_the_contract_has_a_name(ours: Any, theirs: Any) -> None:
    unspecified = theirs.Name(0)
    prefix = unspecified.removesuffix("UNSPECIFIED")
    names = {name.removeprefix(prefix) for name in map(str, theirs.keys())}
    assert {each.name for each in ours} == names - {"UNSPECIFIED"}


async def test_a_token_for_a_run_is_not_in_its_repr(service: Any) -> None:
    service.on("CreateRunToken", pb.CreateRunTokenResponse(token="hsr_secret"))
    async with PrecomputeClient(service.address) as client:
        made = await client.create_run_token("game-1")
    assert made.token == "hsr_secret"
    assert "secret" not in repr(made)
