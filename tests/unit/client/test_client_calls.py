"""What PrecomputeClient sends, and what it makes of the answers."""

import asyncio
import gc
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from headstart import (
    BridgingResults,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Page,
    PipelineDescription,
    PrecomputeClient,
    Results,
    RunSummary,
    ServiceError,
    ServiceUnavailable,
    Started,
    Stats,
    Status,
    StepDescription,
    StepReport,
    Tensor,
    _client,
)
from headstart.v1 import precompute_pb2 as pb

CREATED = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)


def report(state: int = pb.STEP_STATE_COMPLETED, error: str = "") -> pb.StepReport:
    step = pb.StepReport(state=state, error=error, attempts=1)  # type: ignore[arg-type]
    if state == pb.STEP_STATE_COMPLETED:
        step.elapsed.FromMilliseconds(1500)
    return step


def run(status: int = pb.PRECOMPUTE_STATUS_COMPLETED, **fields: Any) -> pb.GetResultsResponse:
    message = pb.GetResultsResponse(
        namespace="default",
        key="game-1",
        pipeline="bridging",
        revision=3,
        status=status,  # type: ignore[arg-type]
        **fields,
    )
    message.created_at.FromDatetime(CREATED)
    return message


def about(seconds: float) -> Any:
    """A deadline as the server sees it: some time has passed, and gRPC rounds it on the wire."""
    return pytest.approx(seconds, abs=0.5)


STARTED = pb.StartPrecomputeResponse(
    namespace="default",
    key="game-1",
    outcome=pb.START_OUTCOME_REPLACED,
    status=pb.PRECOMPUTE_STATUS_PENDING,
    revision=4,
)


async def test_start_bridging_sends_its_arguments_and_tells_the_outcome(service: Any) -> None:
    service.on("StartPrecompute", STARTED)

    async with PrecomputeClient(service.address) as client:
        started = await client.start_bridging(
            "game-1",
            "ocean",
            "forest",
            "haiku",
            clue_count=7,
            null_sample_count=50,
            ttl=timedelta(minutes=2),
            restart=True,
        )

    assert started == Started(
        namespace="default", key="game-1", outcome="replaced", status="pending", revision=4
    )
    expected = pb.StartPrecomputeRequest(
        key="game-1",
        bridging=pb.BridgingSpec(
            anchor="ocean",
            target="forest",
            recipient_type=pb.RECIPIENT_TYPE_HAIKU,
            clue_count=7,
            null_sample_count=50,
        ),
        restart=True,
    )
    expected.ttl.FromSeconds(120)
    assert service.calls[0].request == expected


async def test_start_bridging_leaves_defaults_to_the_server(service: Any) -> None:
    service.on("StartPrecompute", STARTED)

    async with PrecomputeClient(service.address) as client:
        await client.start_bridging("game-1", "ocean", "forest")

    request = service.calls[0].request
    assert request.bridging.recipient_type == pb.RECIPIENT_TYPE_HUMAN
    assert not request.bridging.HasField("clue_count")
    assert not request.bridging.HasField("null_sample_count")
    assert not request.HasField("ttl")


async def test_an_unknown_recipient_is_refused_as_the_server_would(service: Any) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match="must be 'human' or 'haiku', not 'robot'") as no:
            await client.start_bridging("game-1", "ocean", "forest", "robot")

    assert [each.field for each in no.value.violations] == ["bridging.recipient_type"]
    assert service.calls == []


async def test_start_sends_json_inputs(service: Any) -> None:
    service.on("StartPrecompute", STARTED)
    inputs = {"text": "x", "list": (1, 2.5, None, True), "deep": {"a": ["b"]}}

    async with PrecomputeClient(service.address) as client:
        await client.start("game-1", "words", inputs, ttl=1.5)
        await client.start("game-1", "words", {})

    first, second = (call.request for call in service.calls)
    assert first.custom.pipeline == "words"
    assert dict(first.custom.inputs["deep"]) == {"a": first.custom.inputs["deep"]["a"]}
    assert list(first.custom.inputs["list"]) == [1, 2.5, None, True]
    assert first.ttl.ToTimedelta() == timedelta(seconds=1.5)
    assert second.custom.HasField("inputs")


async def test_inputs_that_are_not_json_are_refused(service: Any) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match=r"custom\.inputs: must be JSON values"):
            await client.start("game-1", "words", {"when": CREATED})  # type: ignore[dict-item]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e12])
async def test_a_duration_that_protobuf_cannot_hold_is_refused(
    service: Any, seconds: float
) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match="wait: must be a number of seconds"):
            await client.get_results("game-1", wait=seconds)
        with pytest.raises(InvalidRequest, match="ttl: must be a number of seconds"):
            await client.start("game-1", "words", {}, ttl=seconds)

    assert service.calls == []


async def test_a_negative_duration_is_left_to_the_server(service: Any) -> None:
    service.on("GetResults", run())

    async with PrecomputeClient(service.address, timeout=5.0) as client:
        await client.get_results("game-1", wait=-2.5)

    assert service.calls[0].request.wait.ToTimedelta() == timedelta(seconds=-2.5)
    assert service.calls[0].time_remaining == about(5.0)


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
    json = pb.Artifact()
    json.json.struct_value.update({"count": 3, "share": 0.5, "tags": ["a", None, True], "o": {}})
    artifacts = {
        "json": json,
        "tensor": pb.Artifact(tensor=pb.Tensor(shape=[2, 1], values=[1.5, 2.5])),
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
        "tensor": Tensor(shape=(2, 1), values=(1.5, 2.5)),
    }
    assert type(results.custom["json"]["count"]) is int


async def test_a_status_from_the_future_is_an_error_that_says_so(service: Any) -> None:
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


async def test_pipelines_and_stats_are_converted(service: Any) -> None:
    pipeline = pb.PipelineDescription(name="words", version="2", description="Counts words.")
    pipeline.input_schema.update({"type": "object"})
    step = pipeline.steps.add(name="count", needs=["split"], required=True, max_attempts=3)
    step.timeout.FromSeconds(30)
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


async def test_list_asks_for_pages_until_the_last(service: Any) -> None:
    def page(keys: str, token: str) -> pb.ListPrecomputesResponse:
        runs = [
            pb.PrecomputeSummary(key=key, status=pb.PRECOMPUTE_STATUS_COMPLETED) for key in keys
        ]
        return pb.ListPrecomputesResponse(precomputes=runs, next_page_token=token)

    service.on("ListPrecomputes", page("ab", "t1"), page("", "t2"), page("c", ""))

    async with PrecomputeClient(service.address) as client:
        keys = [run.key async for run in client.list(page_size=2, statuses=["completed", "failed"])]

    requests = [call.request for call in service.calls]
    assert keys == ["a", "b", "c"]
    assert [request.page_token for request in requests] == ["", "t1", "t2"]
    assert {request.page_size for request in requests} == {2}
    assert {tuple(request.statuses) for request in requests} == {
        (pb.PRECOMPUTE_STATUS_COMPLETED, pb.PRECOMPUTE_STATUS_FAILED)
    }


async def test_list_page_returns_one_page_and_where_to_go_on(service: Any) -> None:
    service.on(
        "ListPrecomputes",
        pb.ListPrecomputesResponse(
            precomputes=[pb.PrecomputeSummary(key="a", status=pb.PRECOMPUTE_STATUS_PENDING)],
            next_page_token="t2",
        ),
    )

    async with PrecomputeClient(service.address) as client:
        page = await client.list_page(page_token="t1")
        with pytest.raises(InvalidRequest, match="statuses: must be of pending"):
            await client.list_page(statuses=["gone"])

    assert page == Page(
        runs=(
            RunSummary(
                namespace="",
                key="a",
                pipeline="",
                revision=0,
                status="pending",
                created_at=None,
                started_at=None,
                completed_at=None,
                expires_at=None,
                error=None,
            ),
        ),
        next_page_token="t2",
    )
    assert service.calls[0].request.page_token == "t1"


async def test_every_call_takes_the_clients_namespace_unless_it_names_its_own(
    service: Any
) -> None:
    service.on("WatchResults", [Fault(grpc.StatusCode.NOT_FOUND)])
    service.on("StartPrecompute", Fault(grpc.StatusCode.NOT_FOUND))

    async def drain(iterator: Any) -> None:
        async for _ in iterator:
            pass

    async with PrecomputeClient(service.address, namespace="games") as client:
        for own in ({}, {"namespace": "other"}, {"namespace": ""}):
            for call in (
                client.start_bridging("k", "a", "b", **own),
                client.start("k", "p", {}, **own),
                client.get_results("k", **own),
                drain(client.watch_results("k", **own)),
                client.get_status("k", **own),
                client.cancel("k", **own),
                drain(client.list(**own)),
                client.list_page(**own),
                client.get_stats(**own),
            ):
                with pytest.raises(NotFound):
                    await call

    namespaces = [call.request.namespace for call in service.calls]
    assert namespaces == ["games"] * 9 + ["other"] * 9 + [""] * 9


async def test_the_deadline_of_get_results_lies_behind_its_wait(service: Any) -> None:
    service.on("GetResults", run())

    async with PrecomputeClient(service.address, timeout=7.0) as client:
        await client.get_results("game-1", wait=20, required_steps=["a"], min_revision=2)
        await client.get_results("game-1", wait=timedelta(seconds=30), timeout=1.0)
        await client.get_results("game-1")

    waiting, own_timeout, at_once = service.calls
    assert waiting.request.wait.ToTimedelta() == timedelta(seconds=20)
    assert list(waiting.request.required_steps) == ["a"]
    assert waiting.request.min_revision == 2
    assert waiting.time_remaining == about(27.0)
    assert own_timeout.request.wait.ToTimedelta() == timedelta(seconds=30)
    assert own_timeout.time_remaining == about(31.0)
    assert not at_once.request.HasField("wait")
    assert at_once.time_remaining == about(7.0)


async def test_a_call_that_is_not_answered_in_time_raises(
    service: Any, stopwatch: Any
) -> None:
    service.on("GetStats", hang)

    async with PrecomputeClient(service.address) as client:
        stopwatch()
        with pytest.raises(DeadlineExceeded):
            await client.get_stats(timeout=0.2)
        assert 0.15 < stopwatch() < 2.0


async def test_a_call_is_retried_while_the_service_is_unavailable(service: Any) -> None:
    away = Fault(grpc.StatusCode.UNAVAILABLE, "store away", retry_after=0.1)
    service.on("StartPrecompute", away, away, STARTED)

    async with PrecomputeClient(service.address) as client:
        started = await client.start_bridging("game-1", "ocean", "forest")

    assert started.revision == 4
    assert len(service.seen("StartPrecompute")) == 3


async def test_retries_end_and_may_be_turned_off(service: Any) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.UNAVAILABLE))

    async with PrecomputeClient(service.address, max_attempts=3) as client:
        with pytest.raises(ServiceUnavailable):
            await client.get_stats()
    assert len(service.calls) == 3

    async with PrecomputeClient(service.address, max_attempts=1) as client:
        with pytest.raises(ServiceUnavailable):
            await client.get_stats()
    assert len(service.calls) == 4


async def test_an_error_that_a_retry_cannot_mend_is_not_retried(service: Any) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.INTERNAL))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceError):
            await client.get_stats()

    assert len(service.calls) == 1


async def test_an_answer_of_many_megabytes_arrives(service: Any) -> None:
    artifact = pb.Artifact(data=bytes(20 * 1024 * 1024))
    service.on("GetResults", run(custom=pb.CustomResults(artifacts={"big": artifact})))

    async with PrecomputeClient(service.address) as client:
        results = await client.get_results("game-1")

    assert results.custom is not None
    assert len(results.custom["big"]) == 20 * 1024 * 1024


async def test_a_token_goes_along_with_every_call_and_may_change(service: Any) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    service.on("WatchResults", [run()])
    tokens = iter(["second", "third"])

    async with PrecomputeClient(service.address, token="first") as client:
        await client.get_stats()
    async with PrecomputeClient(service.address, token=lambda: next(tokens)) as client:
        await client.get_stats()
        assert [results.revision async for results in client.watch_results("game-1")] == [3]

    assert [call.metadata["authorization"] for call in service.calls] == [
        "Bearer first",
        "Bearer second",
        "Bearer third",
    ]


def test_a_token_is_not_shown_by_repr() -> None:
    client = PrecomputeClient(token="s3cret")

    assert "s3cret" not in repr(client._connection.endpoint)


async def test_the_address_comes_from_the_environment(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("GetStats", pb.GetStatsResponse(total_cached=5))
    monkeypatch.setenv("HEADSTART_ADDRESS", service.address)

    async with PrecomputeClient() as client:
        assert (await client.get_stats()).total_cached == 5


def test_without_an_environment_the_address_is_this_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HEADSTART_ADDRESS", raising=False)

    assert PrecomputeClient()._connection.endpoint.address == "localhost:50051"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": math.nan}, "timeout must be more than 0"),
        ({"max_attempts": 0}, "max_attempts must be 1 to 5"),
        ({"max_attempts": 6}, "max_attempts must be 1 to 5"),
        (
            {"call_credentials": grpc.access_token_call_credentials("t")},
            "call_credentials need channel_credentials",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PrecomputeClient(**settings)


async def test_call_credentials_are_taken_with_channel_credentials() -> None:
    client = PrecomputeClient(
        "localhost:1",
        channel_credentials=grpc.local_channel_credentials(),
        call_credentials=grpc.access_token_call_credentials("t"),
    )

    assert isinstance(client._connection.endpoint.credentials, grpc.ChannelCredentials)


async def test_a_client_may_be_made_before_there_is_a_loop_and_belongs_to_its_first(
    service: Any,
) -> None:
    service.on("GetStats", pb.GetStatsResponse(total_cached=5))
    client = await asyncio.to_thread(PrecomputeClient, service.address)
    assert (await client.get_stats()).total_cached == 5

    def elsewhere() -> None:
        asyncio.run(client.get_stats())

    with pytest.raises(RuntimeError, match="one client per loop"):
        await asyncio.to_thread(elsewhere)
    await client.close()


async def test_a_closed_client_says_so(service: Any) -> None:
    client = PrecomputeClient(service.address)
    await client.close()
    await client.close()

    with pytest.raises(RuntimeError, match="closed"):
        await client.get_stats()


async def test_closing_ends_the_calls_under_way_with_an_error_not_a_cancellation(
    service: Any
) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def arrive_and_hang(request: Any, context: Any) -> None:
        loop.call_soon_threadsafe(arrived.set)
        await hang(request, context)

    service.on("GetResults", arrive_and_hang)
    client = PrecomputeClient(service.address)
    call = asyncio.create_task(client.get_results("game-1", wait=60))
    await asyncio.wait_for(arrived.wait(), 5)

    await client.close()

    with pytest.raises(ServiceUnavailable, match="closed during this call"):
        await call


async def test_cancelling_a_callers_task_is_a_cancellation(
    service: Any
) -> None:
    service.on("GetResults", hang)

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.get_results("game-1", wait=60)


async def test_connect_returns_once_connected_and_fails_soon_otherwise(
    service: Any, refused: str, black_hole: str, stopwatch: Any
) -> None:
    async with PrecomputeClient(service.address) as client:
        await client.connect()
    async with PrecomputeClient(refused) as client:
        stopwatch()
        with pytest.raises(ServiceUnavailable, match=f"cannot connect to {refused}"):
            await client.connect()
        assert stopwatch() < 1.0
    async with PrecomputeClient(black_hole) as client:
        stopwatch()
        with pytest.raises(ServiceUnavailable, match=r"within 0\.2 s"):
            await client.connect(timeout=0.2)
        assert 0.15 < stopwatch() < 1.0


async def test_closing_while_connecting_is_an_error_not_a_hang(black_hole: str) -> None:
    client = PrecomputeClient(black_hole)
    connecting = asyncio.create_task(client.connect(timeout=30))
    await asyncio.sleep(0)

    await client.close()

    with pytest.raises(ServiceUnavailable, match="closed during this call"):
        await asyncio.wait_for(connecting, 5)


class TestWatching:
    """watch_results, whole and cut."""

    @pytest.fixture(autouse=True)
    def _short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_client, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(_client, "_LONGEST_PAUSE", 0.002)

    async def test_yields_each_change_and_ends_with_the_run(self, service: Any) -> None:
        service.on(
            "WatchResults",
            [
                run(pb.PRECOMPUTE_STATUS_PENDING),
                run(pb.PRECOMPUTE_STATUS_IN_PROGRESS),
                run(pb.PRECOMPUTE_STATUS_COMPLETED),
            ],
        )

        async with PrecomputeClient(service.address) as client:
            statuses = [results.status async for results in client.watch_results("game-1")]

        assert statuses == ["pending", "in_progress", "completed"]
        assert [call.request.key for call in service.calls] == ["game-1"]

    async def test_resumes_when_cut_without_repeating_itself(
        self, service: Any
    ) -> None:
        cut = Fault(grpc.StatusCode.UNAVAILABLE, "connection ages")
        service.on(
            "WatchResults",
            [cut],
            [run(pb.PRECOMPUTE_STATUS_PENDING), cut],
            [run(pb.PRECOMPUTE_STATUS_PENDING), run(pb.PRECOMPUTE_STATUS_IN_PROGRESS), cut],
            [run(pb.PRECOMPUTE_STATUS_IN_PROGRESS), run(pb.PRECOMPUTE_STATUS_COMPLETED)],
        )

        async with PrecomputeClient(service.address) as client:
            statuses = [results.status async for results in client.watch_results("game-1")]

        assert statuses == ["pending", "in_progress", "completed"]
        assert len(service.calls) == 4

    async def test_resumes_when_the_server_itself_goes_and_comes_back(
        self, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Six attempts that span the 0.1 s after which gRPC connects again.
        monkeypatch.setattr(_client, "_FIRST_PAUSE", 0.1)
        monkeypatch.setattr(_client, "_LONGEST_PAUSE", 0.5)
        in_progress = run(pb.PRECOMPUTE_STATUS_IN_PROGRESS)

        async def wait_for_the_end(request: Any, context: Any) -> None:
            await asyncio.Event().wait()

        service.on("WatchResults", [in_progress, wait_for_the_end], [in_progress, run()])

        async with PrecomputeClient(service.address) as client:
            statuses = []
            async for results in client.watch_results("game-1"):
                statuses.append(results.status)
                if not results.status.ended:
                    await asyncio.to_thread(service.stop)
                    await asyncio.to_thread(service.start)

        assert statuses == ["in_progress", "completed"]

    async def test_a_cut_behind_the_end_is_no_error(self, service: Any) -> None:
        service.on("WatchResults", [run(), Fault(grpc.StatusCode.UNAVAILABLE)])

        async with PrecomputeClient(service.address) as client:
            statuses = [results.status async for results in client.watch_results("game-1")]

        assert statuses == ["completed"]
        assert len(service.calls) == 1

    async def test_a_stream_that_ends_before_the_run_is_resumed(self, service: Any) -> None:
        service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING)], [run()])

        async with PrecomputeClient(service.address) as client:
            statuses = [results.status async for results in client.watch_results("game-1")]

        assert statuses == ["pending", "completed"]

    async def test_gives_up_when_resuming_brings_nothing_new(
        self, service: Any
    ) -> None:
        pending = run(pb.PRECOMPUTE_STATUS_PENDING)
        cut = Fault(grpc.StatusCode.UNAVAILABLE, "still away")
        service.on("WatchResults", [pending, cut])

        async with PrecomputeClient(service.address) as client:
            statuses = []
            with pytest.raises(ServiceUnavailable, match="still away"):
                async for results in client.watch_results("game-1"):
                    statuses.append(results.status)

        assert statuses == ["pending"]
        # The first stream brought something, so its cut is the first of six.
        assert len(service.calls) == 6

    async def test_another_error_is_raised_at_once(self, service: Any) -> None:
        gone = Fault(grpc.StatusCode.NOT_FOUND, "expired")
        service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING), gone])

        async with PrecomputeClient(service.address) as client:
            with pytest.raises(NotFound, match="expired"):
                async for _ in client.watch_results("game-1"):
                    pass

        assert len(service.calls) == 1

    async def test_leaving_early_ends_the_call_on_the_server(self, service: Any) -> None:
        left = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def notice(request: Any, context: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                loop.call_soon_threadsafe(left.set)

        service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING), notice])

        async with PrecomputeClient(service.address) as client:
            async for _ in client.watch_results("game-1"):
                break
            gc.collect()
            await asyncio.wait_for(left.wait(), 5)

    async def test_closing_the_client_ends_a_watch_with_an_error(self, service: Any) -> None:
        async def wait_for_the_end(request: Any, context: Any) -> None:
            await asyncio.Event().wait()

        service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING), wait_for_the_end])
        client = PrecomputeClient(service.address)
        watch = client.watch_results("game-1")
        await anext(watch)
        following = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)

        await client.close()

        with pytest.raises(ServiceUnavailable, match="closed during this call"):
            await asyncio.wait_for(following, 5)
