"""watch_results, whole and cut."""

import asyncio
import gc
import random
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from headstart import NotFound, PrecomputeClient, ServiceUnavailable
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import Fault
from tests.unit.client.messages import run


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.001)  # the share of each pause


async def test_yields_each_change_and_ends_with_the_run(service: Any) -> None:
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


async def test_resumes_when_cut_without_repeating_itself(service: Any) -> None:
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


async def test_resumes_as_often_as_each_cut_stream_brought_something_new(service: Any) -> None:
    states = []
    for number in range(10):
        state = run(pb.PRECOMPUTE_STATUS_IN_PROGRESS)
        state.steps["embed_endpoints"].attempts = number
        state.steps["embed_endpoints"].state = pb.STEP_STATE_RUNNING
        states.append([state, Fault(grpc.StatusCode.UNAVAILABLE)])
    service.on("WatchResults", *states, [run()])

    async with PrecomputeClient(service.address) as client:
        watched = [results async for results in client.watch_results("game-1")]

    attempts = [results.steps["embed_endpoints"].attempts for results in watched[:-1]]
    assert attempts == list(range(10))
    assert watched[-1].status == "completed"


async def test_resumes_when_the_server_itself_goes_and_comes_back(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six attempts that span the 0.1 s after which gRPC connects again.
    monkeypatch.setattr(random, "uniform", lambda least, most: least)
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


async def test_a_cut_behind_the_end_is_no_error(service: Any) -> None:
    service.on("WatchResults", [run(), Fault(grpc.StatusCode.UNAVAILABLE)])

    async with PrecomputeClient(service.address) as client:
        statuses = [results.status async for results in client.watch_results("game-1")]

    assert statuses == ["completed"]
    assert len(service.calls) == 1


async def test_a_stream_that_ends_before_the_run_is_resumed(service: Any) -> None:
    service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING)], [run()])

    async with PrecomputeClient(service.address) as client:
        statuses = [results.status async for results in client.watch_results("game-1")]

    assert statuses == ["pending", "completed"]


async def test_streams_that_servers_end_in_order_are_resumed_without_end(service: Any) -> None:
    pending = run(pb.PRECOMPUTE_STATUS_PENDING)
    service.on("WatchResults", *[[pending]] * 9, [pending, run()])

    async with PrecomputeClient(service.address) as client:
        statuses = [results.status async for results in client.watch_results("game-1")]

    assert statuses == ["pending", "completed"]
    assert len(service.calls) == 10


async def test_gives_up_when_resuming_brings_nothing_new(service: Any) -> None:
    pending = run(pb.PRECOMPUTE_STATUS_PENDING)
    cut = Fault(grpc.StatusCode.UNAVAILABLE, "still away")
    service.on("WatchResults", [pending, cut])

    async with PrecomputeClient(service.address) as client:
        watch = client.watch_results("game-1")
        assert (await anext(watch)).status == "pending"
        with pytest.raises(ServiceUnavailable, match="still away"):
            await anext(watch)

    # The first stream brought something, so its cut is the first of six.
    assert len(service.calls) == 6


async def test_another_error_is_raised_at_once(service: Any) -> None:
    gone = Fault(grpc.StatusCode.NOT_FOUND, "expired")
    service.on("WatchResults", [run(pb.PRECOMPUTE_STATUS_PENDING), gone])

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(NotFound, match="expired"):
            async for _ in client.watch_results("game-1"):
                pass

    assert len(service.calls) == 1


async def test_leaving_early_ends_the_call_on_the_server(service: Any) -> None:
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


async def test_closing_the_client_ends_a_watch_with_an_error(service: Any) -> None:
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


def of_key(key: str, status: int = pb.PRECOMPUTE_STATUS_COMPLETED) -> pb.GetResultsResponse:
    state = run(status)
    state.key = key
    return state


def lost(key: str, code: int = code_pb2.UNAVAILABLE) -> pb.WatchResultsResponse:
    return pb.WatchResultsResponse(key=key, error=pb.Error(code=code, message="away"))


async def watched_keys(service: Any, *keys: str) -> list[tuple[str, str]]:
    async with PrecomputeClient(service.address) as client, asyncio.timeout(10):
        return [
            (key, type(found).__name__ if isinstance(found, Exception) else found.status)
            async for key, found in client.watch_many(keys)
        ]


async def test_a_key_whose_store_is_away_is_watched_again(service: Any) -> None:
    waiting = of_key("b", pb.PRECOMPUTE_STATUS_PENDING)

    async def wait_for_the_end(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    service.on(
        "WatchResults",
        [lost("a"), waiting, lost("c", code_pb2.NOT_FOUND), wait_for_the_end],
        [waiting, lost("a"), wait_for_the_end],
        [of_key("a"), waiting, of_key("b")],
    )
    assert await watched_keys(service, "a", "b", "c") == [
        ("b", "pending"),
        ("c", "NotFound"),
        ("a", "completed"),
        ("b", "completed"),
    ]
    assert [list(call.request.keys) for call in service.calls] == [
        ["a", "b", "c"],
        ["a", "b"],
        ["a", "b"],
    ]


async def test_a_key_that_stays_away_has_its_error_and_the_others_go_on(service: Any) -> None:
    waiting = of_key("b", pb.PRECOMPUTE_STATUS_PENDING)
    service.on("WatchResults", *[[lost("a"), waiting]] * 6, [waiting, of_key("b")])
    found = await watched_keys(service, "a", "b", "b")
    assert found == [("b", "pending"), ("a", "ServiceUnavailable"), ("b", "completed")]
    assert [list(call.request.keys) for call in service.calls] == [["a", "b"]] * 6 + [["b"]]
