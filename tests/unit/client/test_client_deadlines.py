"""How long calls may take, and how often they are tried."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from headstart import DeadlineExceeded, PrecomputeClient, ServiceError, ServiceUnavailable
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import Fault, hang
from tests.unit.client.messages import STARTED, run


def about(seconds: float) -> Any:
    """A deadline as the server sees it: some time has passed, and gRPC rounds it on the wire."""
    return pytest.approx(seconds, abs=0.5)


async def test_a_negative_duration_is_left_to_the_server(service: Any) -> None:
    service.on("GetResults", run())

    async with PrecomputeClient(service.address, timeout=5.0) as client:
        await client.get_results("game-1", wait=-2.5)

    assert service.calls[0].request.wait.ToTimedelta() == timedelta(seconds=-2.5)
    assert service.calls[0].time_remaining == about(5.0)


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


async def test_a_call_that_is_not_answered_in_time_raises(service: Any, stopwatch: Any) -> None:
    service.on("GetStats", hang)

    async with PrecomputeClient(service.address) as client:
        stopwatch()
        with pytest.raises(DeadlineExceeded):
            await client.get_stats(timeout=0.2)
        assert 0.15 < stopwatch() < 5.0


async def test_a_call_is_retried_while_the_service_is_unavailable(service: Any) -> None:
    away = Fault(grpc.StatusCode.UNAVAILABLE, "store away", retry_after=0.1)
    service.on("StartPrecompute", away, away, STARTED)

    async with PrecomputeClient(service.address) as client:
        started = await client.start_bridging("game-1", "ocean", "forest")

    assert started.revision == 4
    assert len(service.seen("StartPrecompute")) == 3


async def test_what_a_stopping_server_cancels_is_tried_again(service: Any) -> None:
    service.on("StartPrecompute", Fault(grpc.StatusCode.CANCELLED), STARTED)

    async with PrecomputeClient(service.address) as client:
        assert (await client.start_bridging("game-1", "ocean", "forest")).revision == 4


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
