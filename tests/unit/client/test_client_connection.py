"""How PrecomputeClient connects, who it says it is, and how it closes."""

import asyncio
import math
from typing import Any

import grpc
import pytest

from headstart import HeadstartError, PrecomputeClient, ServiceUnavailable
from headstart._clients.blocking_client import BlockingClient
from headstart._transport.endpoint import endpoint
from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub
from tests.support.scripted_service import hang
from tests.unit.client.messages import run


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
    assert "s3cret" not in repr(endpoint(None, token="s3cret"))


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

    assert endpoint(None).address == "localhost:50051"


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
    settings: dict[str, Any] = {
        "channel_credentials": grpc.local_channel_credentials(),
        "call_credentials": grpc.access_token_call_credentials("t"),
    }
    PrecomputeClient("localhost:1", **settings)

    found = endpoint("localhost:1", **settings)
    assert isinstance(found.credentials, grpc.ChannelCredentials)


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


async def test_a_closed_client_raises_that_it_is_closed(service: Any) -> None:
    client = PrecomputeClient(service.address)
    await client.close()
    await client.close()

    with pytest.raises(RuntimeError, match="closed"):
        await client.get_stats()


async def test_closing_ends_the_calls_under_way_with_an_error_not_a_cancellation(
    service: Any,
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


async def test_cancelling_a_callers_task_is_a_cancellation(service: Any) -> None:
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
        assert stopwatch() < 5.0
    async with PrecomputeClient(black_hole) as client:
        stopwatch()
        with pytest.raises(ServiceUnavailable, match=r"within 0\.2 s"):
            await client.connect(timeout=0.2)
        assert 0.15 < stopwatch() < 5.0


async def test_closing_while_connecting_is_an_error_not_a_hang(black_hole: str) -> None:
    client = PrecomputeClient(black_hole)
    connecting = asyncio.create_task(client.connect(timeout=30))
    await asyncio.sleep(0)

    await client.close()

    with pytest.raises(ServiceUnavailable, match="closed during this call"):
        await asyncio.wait_for(connecting, 5)


LARGE_STATS = pb.GetStatsResponse(status_counts={str(number): number for number in range(100)})
SMALL_LIMIT = [("grpc.max_receive_message_length", 16)]


async def test_a_callers_channel_option_replaces_the_clients_own(service: Any) -> None:
    service.on("GetStats", LARGE_STATS)

    async with PrecomputeClient(service.address, options=SMALL_LIMIT) as client:
        with pytest.raises(HeadstartError, match="larger than max"):
            await client.get_stats()


def test_blocking_channels_take_a_callers_option_too(service: Any) -> None:
    service.on("GetStats", LARGE_STATS)
    service.on("GetResults", run())

    with (
        BlockingClient(service.address, options=SMALL_LIMIT) as client,
        pytest.raises(HeadstartError, match="larger than max"),
    ):
        client.get_results("game-1")
    with endpoint(service.address, options=SMALL_LIMIT).open_blocking() as channel:
        with pytest.raises(grpc.RpcError, match="larger than max"):
            PrecomputeServiceStub(channel).GetStats(pb.GetStatsRequest(), timeout=5)
