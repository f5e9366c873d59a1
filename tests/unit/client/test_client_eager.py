"""The facade while the service serves."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest

from headstart import EagerPrecompute, PrecomputeResult, PrecomputeStatus, RecipientType
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import hang
from tests.support.waiting import wait_until
from tests.unit.client.messages import STARTED

STARTED_AT = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def completed() -> pb.GetResultsResponse:
    message = pb.GetResultsResponse(
        namespace="default",
        key="abc123",
        pipeline="bridging",
        revision=1,
        status=pb.PRECOMPUTE_STATUS_COMPLETED,
        bridging=pb.BridgingResults(
            anchor_embedding=[1, 0],
            target_embedding=[0, 1],
            lexical_bridge=["shore"],
            lexical_embeddings=[pb.Embedding(values=[0.5, 0.5])],
            null_samples=[0.1, 0.2],
            embedding_model="model-7",
        ),
    )
    message.started_at.FromDatetime(STARTED_AT)
    return message


def status(value: int = pb.PRECOMPUTE_STATUS_COMPLETED) -> pb.GetStatusResponse:
    return pb.GetStatusResponse(key="abc123", status=value)  # type: ignore[arg-type]


STATS = pb.GetStatsResponse(
    total_cached=50,
    active_tasks=3,
    status_counts={"completed": 45, "in_progress": 3, "failed": 2},
    queued_jobs=1,
    max_cached=1000,
)


@pytest.fixture(autouse=True)
def _at_the_service(service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEADSTART_ADDRESS", service.address)
    EagerPrecompute.reset_instance()
    yield
    EagerPrecompute.reset_instance()


async def test_starting_sends_the_game_and_returns_where_the_run_stands(service: Any) -> None:
    service.on(
        "StartPrecompute",
        pb.StartPrecomputeResponse(
            key="abc123", outcome=pb.START_OUTCOME_STARTED, status=pb.PRECOMPUTE_STATUS_PENDING
        ),
    )
    precompute = EagerPrecompute.get_instance()

    started = await precompute.start_bridging_precompute(
        game_id="abc123",
        anchor="ocean",
        target="forest",
        recipient_type="haiku",
        supabase=object(),
    )

    assert started is PrecomputeStatus.PENDING
    assert service.calls[0].request == pb.StartPrecomputeRequest(
        key="abc123",
        bridging=pb.BridgingSpec(
            anchor="ocean", target="forest", recipient_type=pb.RECIPIENT_TYPE_HAIKU
        ),
    )


async def test_results_are_lists_and_utc_times_and_none_for_what_is_absent(service: Any) -> None:
    service.on("GetResults", completed())

    results = await EagerPrecompute.get_instance().get_precomputed_results("abc123")

    assert results == PrecomputeResult(
        game_id="abc123",
        status=PrecomputeStatus.COMPLETED,
        started_at=STARTED_AT,
        completed_at=None,
        error=None,
        anchor_embedding=[1.0, 0.0],
        target_embedding=[0.0, 1.0],
        haiku_clues=None,
        haiku_embeddings=None,
        lexical_bridge=["shore"],
        lexical_embeddings=[[0.5, 0.5]],
        null_samples=[0.1, 0.2],
        embedding_model="model-7",
    )


async def test_results_of_another_pipeline_have_no_parts(service: Any) -> None:
    message = pb.GetResultsResponse(
        key="abc123", pipeline="words", status=pb.PRECOMPUTE_STATUS_FAILED, error="no"
    )
    service.on("GetResults", message)

    results = await EagerPrecompute.get_instance().get_precomputed_results("abc123")

    assert results == PrecomputeResult("abc123", PrecomputeStatus.FAILED, error="no")


@pytest.mark.parametrize(
    ("timeout_seconds", "wait", "deadline"),
    [
        (None, 600.0, 600.5),
        (timedelta(milliseconds=1500), 1.5, 2.0),
        (0.0, 0.0, 0.5),
        (2.0, 2.0, 2.5),
        (-5.0, 0.0, 0.5),
        (float("nan"), 0.0, 0.5),
        (float("inf"), 600.0, 600.5),
    ],
)
async def test_the_wait_is_the_callers_timeout_and_the_deadline_a_little_later(
    service: Any, timeout_seconds: float | timedelta | None, wait: float, deadline: float
) -> None:
    service.on("GetResults", completed())
    precompute = EagerPrecompute.get_instance()

    assert await precompute.get_precomputed_results("abc123", timeout_seconds=timeout_seconds)

    (call,) = service.calls
    assert call.request.wait.ToTimedelta().total_seconds() == wait
    # gRPC rounds a deadline to three digits on the wire.
    assert deadline - 0.4 < call.time_remaining < deadline * 1.01


async def test_the_default_wait_is_the_originals(service: Any) -> None:
    service.on("GetResults", completed())

    assert await EagerPrecompute.get_instance().get_precomputed_results("abc123")

    assert service.calls[0].request.wait.ToTimedelta() == timedelta(seconds=5)


class Players(Enum):
    PERSON = "human"
    MODEL = "haiku"


class TextPlayers(str, Enum):  # noqa: UP042  (what callers of older Pythons have)
    MODEL = "haiku"


@pytest.mark.parametrize(
    ("game_id", "key"),
    [
        (UUID("0b9d0e4a-6a4c-4c1c-9a54-3f3f5d6f8f10"), "0b9d0e4a-6a4c-4c1c-9a54-3f3f5d6f8f10"),
        (7, "7"),
        ("7", "7"),
    ],
)
@pytest.mark.parametrize("recipient", [Players.MODEL, TextPlayers.MODEL, RecipientType.HAIKU])
async def test_ids_and_recipients_are_what_backends_have(
    service: Any, game_id: Any, key: str, recipient: Any
) -> None:
    service.on("StartPrecompute", STARTED)
    service.on("GetResults", completed())
    service.on("GetStatus", status())
    precompute = EagerPrecompute.get_instance()

    assert await precompute.start_bridging_precompute(game_id, "ocean", "forest", recipient)
    assert await precompute.get_precomputed_results(game_id)
    assert precompute.get_status(game_id)

    assert [call.request.key for call in service.calls] == [key] * 3
    assert service.calls[0].request.bridging.recipient_type == pb.RECIPIENT_TYPE_HAIKU


async def test_an_unknown_game_is_none_and_nothing_to_log_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    precompute = EagerPrecompute.get_instance()

    assert await precompute.get_precomputed_results("nobody") is None
    assert precompute.get_status("nobody") is None
    assert caplog.records == []


async def test_status_and_stats_answer_inside_a_running_loop(service: Any) -> None:
    service.on("GetStatus", status())
    service.on("GetStats", STATS)
    precompute = EagerPrecompute.get_instance()

    assert precompute.get_status("abc123") is PrecomputeStatus.COMPLETED
    assert precompute.get_stats() == {
        "total_cached": 50,
        "active_tasks": 3,
        "status_counts": {"completed": 45, "in_progress": 3, "failed": 2},
    }


def test_status_and_stats_answer_without_a_loop(service: Any) -> None:
    service.on("GetStatus", status(pb.PRECOMPUTE_STATUS_CANCELLED))
    service.on("GetStats", pb.GetStatsResponse())
    precompute = EagerPrecompute.get_instance()

    assert precompute.get_status("abc123") is PrecomputeStatus.CANCELLED
    assert precompute.get_stats() == {"total_cached": 0, "active_tasks": 0, "status_counts": {}}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[grpc.aio.Channel]]:
    """The channels that clients open, as long as anybody refers to them."""
    open_channel = grpc.aio.insecure_channel
    channels: list[weakref.ref[grpc.aio.Channel]] = []

    def opens(*settings: Any, **more: Any) -> grpc.aio.Channel:
        channel = open_channel(*settings, **more)
        channels.append(weakref.ref(channel))
        return channel

    monkeypatch.setattr(grpc.aio, "insecure_channel", opens)
    return channels


def test_one_instance_serves_several_loops_and_forgets_those_that_ended(
    service: Any, opened: list[weakref.ref[grpc.aio.Channel]]
) -> None:
    service.on("GetResults", completed())
    precompute = EagerPrecompute.get_instance()

    async def ask() -> None:
        assert await precompute.get_precomputed_results("abc123") is not None

    asyncio.run(ask())
    asyncio.run(ask())
    gc.collect()

    assert [channel() is None for channel in opened] == [True, False]
    assert len(service.calls) == 2


def test_one_instance_serves_loops_in_several_threads_at_once(service: Any) -> None:
    service.on("GetResults", completed())
    precompute = EagerPrecompute.get_instance()
    together = threading.Barrier(4)
    found = []

    def play() -> None:
        async def ask() -> None:
            together.wait(5)
            for _ in range(20):
                result = await precompute.get_precomputed_results("abc123", 5.0)
                found.append(result is not None)

        asyncio.run(ask())

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert found == [True] * 80


def test_every_thread_gets_the_same_instance() -> None:
    together = threading.Barrier(8)
    found = []

    def get() -> None:
        together.wait(5)
        found.append(EagerPrecompute.get_instance())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    assert len(found) == 8
    assert len(set(found)) == 1


async def test_resetting_inside_a_loop_closes_and_makes_the_next_one_new(
    service: Any, opened: list[weakref.ref[grpc.aio.Channel]]
) -> None:
    service.on("GetResults", completed())
    service.on("GetStats", STATS)
    first = EagerPrecompute.get_instance()
    await first.get_precomputed_results("abc123")
    first.get_stats()

    EagerPrecompute.reset_instance()
    channel = opened[0]()
    assert channel is not None
    await wait_until(lambda: channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN)

    second = EagerPrecompute.get_instance()
    assert second is not first
    assert await second.get_precomputed_results("abc123") is not None


def test_resetting_works_without_a_loop_and_without_an_instance(service: Any) -> None:
    service.on("GetResults", completed())
    precompute = EagerPrecompute.get_instance()
    assert asyncio.run(precompute.get_precomputed_results("abc123")) is not None

    EagerPrecompute.reset_instance()
    EagerPrecompute.reset_instance()

    assert EagerPrecompute.get_instance() is not precompute


async def test_who_still_holds_the_old_instance_can_go_on_using_it(service: Any) -> None:
    service.on("GetResults", completed())
    service.on("GetStats", STATS)
    held = EagerPrecompute.get_instance()
    await held.get_precomputed_results("abc123")

    EagerPrecompute.reset_instance()

    assert await held.get_precomputed_results("abc123") is not None
    assert held.get_stats()["total_cached"] == 50
    held.close()


async def test_resetting_ends_a_wait_with_none(service: Any) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def arrive_and_hang(request: Any, context: Any) -> None:
        loop.call_soon_threadsafe(arrived.set)
        await hang(request, context)

    service.on("GetResults", arrive_and_hang)
    precompute = EagerPrecompute.get_instance()
    waiting = asyncio.create_task(precompute.get_precomputed_results("abc123", 60))
    await asyncio.wait_for(arrived.wait(), 5)

    EagerPrecompute.reset_instance()

    assert await asyncio.wait_for(waiting, 5) is None


async def test_cancelling_the_caller_is_a_cancellation(service: Any) -> None:
    service.on("GetResults", hang)
    precompute = EagerPrecompute.get_instance()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await precompute.get_precomputed_results("abc123", 60)


async def test_configuring_replaces_the_instance(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADSTART_ADDRESS")
    service.on("GetResults", completed())
    service.on("GetStats", STATS)

    configured = EagerPrecompute.configure(service.address, namespace="games", token="t")

    assert EagerPrecompute.get_instance() is configured
    await configured.get_precomputed_results("abc123")
    configured.get_stats()
    assert [call.request.namespace for call in service.calls] == ["games", "games"]
    assert [call.metadata["authorization"] for call in service.calls] == ["Bearer t", "Bearer t"]
