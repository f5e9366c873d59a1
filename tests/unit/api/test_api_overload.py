"""More calls than an API process may hold: through the real server, on a store that tests hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.api.call_limits import CallLimit, CallLimits
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.grpc_server import build_server
from headstart_service.api.health import Health
from headstart_service.api.results.answer import answer_from
from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import CapacityExhausted
from headstart_service.pipeline.registry import Registry
from tests.support.requests import results
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, KEY, PIPELINE, Api, snapshot_of

DONE = snapshot_of(dict.fromkeys(("one", "two", "three"), COMPLETED), Status.COMPLETED)
RUN = replace(DONE.summary, key=RunKey("default", "k"))
LIMITS = {"waiters": 3, "watches": 2, "calls": 1}


@dataclass
class Served:
    stub: Any
    health: Any
    store: FakeRunStore
    api: Api


@pytest.fixture
async def served(api: Api) -> AsyncIterator[Served]:
    store, health = FakeRunStore(RUN), Health()
    store.gate.clear()
    await health.set_serving(serving=True)
    rules = ApiRules(result_ttl=600.0, max_records=3)
    servicer = Dependencies(store, Registry([PIPELINE]), api.reader, rules)  # type: ignore[arg-type]
    server = build_server(servicer, health, CallLimits(**LIMITS))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield Served(
            pb_grpc.PrecomputeServiceStub(channel), health_pb2_grpc.HealthStub(channel), store, api
        )


async def refused(call: Any) -> float:
    """The delay that the call is refused with, without having waited for anybody."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    assert status is not None
    [detail] = status.details
    retry = error_details_pb2.RetryInfo()
    assert detail.Unpack(retry)
    return float(retry.retry_delay.ToTimedelta().total_seconds())


def status(served: Served) -> Any:
    return asyncio.ensure_future(served.stub.GetStatus(pb.GetStatusRequest(key="k"), timeout=20))


def get(served: Served, key: str = KEY.key) -> Any:
    return asyncio.ensure_future(served.stub.GetResults(results(key, 20), timeout=30))


async def test_one_call_too_many_is_refused_and_the_place_is_free_again(served: Served) -> None:
    first = status(served)
    await wait_until(lambda: len(served.store.calls) == 1)
    assert 0.5 <= await refused(status(served)) <= 1.5
    await refused(served.stub.ListPipelines(pb.ListPipelinesRequest(), timeout=20))
    assert len(served.store.calls) == 1
    served.store.gate.set()
    await first
    await status(served)


async def test_one_waiter_too_many_is_refused_and_ready_results_are_not(served: Served) -> None:
    cache = served.api.cache
    cache.put(RunKey("default", "ready"), answer_from(DONE), cache.moment, time.monotonic())
    waiting = [get(served) for _ in range(3)]
    await served.api.parked(3)
    assert await refused(get(served)) >= 0.5
    assert (await get(served, "ready")).status == pb.PRECOMPUTE_STATUS_COMPLETED
    served.api.store.end("one", "two", "three")
    await asyncio.gather(*waiting)
    await get(served)


async def test_a_waiter_that_leaves_makes_room(served: Served) -> None:
    waiting = [get(served) for _ in range(3)]
    await served.api.parked(3)
    waiting[0].cancel()
    await wait_until(lambda: served.api.waiting.waiters == 2)
    waiting.append(get(served))
    await served.api.parked(3)
    served.api.store.end("one", "two", "three")
    await asyncio.gather(*waiting[1:])


async def test_one_watch_too_many_is_refused_and_one_that_is_left_makes_room(
    served: Served,
) -> None:
    request = pb.WatchResultsRequest(key=KEY.key)
    watches = [served.stub.WatchResults(request, timeout=30) for _ in range(2)]
    for watch in watches:
        await watch.read()
    await refused(served.stub.WatchResults(request, timeout=30).read())
    watches[0].cancel()
    await wait_until(lambda: served.api.waiting.waiters == 1)
    another = served.stub.WatchResults(request, timeout=30)
    assert (await another.read()).results.key == KEY.key
    for watch in (watches[1], another):
        watch.cancel()
    await wait_until(lambda: served.api.waiting.waiters == 0)


async def test_kinds_of_calls_do_not_take_each_others_places_nor_healths(served: Served) -> None:
    waiting = [get(served) for _ in range(3)]
    watch = served.stub.WatchResults(pb.WatchResultsRequest(key=KEY.key), timeout=30)
    await watch.read()
    await served.api.parked(4)
    held = status(served)
    await wait_until(lambda: len(served.store.calls) == 1)
    await refused(status(served))
    answer = await served.health.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.ServingStatus.SERVING
    served.store.gate.set()
    served.api.store.end("one", "two", "three")
    await asyncio.gather(held, *waiting)
    assert (await watch.read()).results.status == pb.PRECOMPUTE_STATUS_COMPLETED


async def test_a_wait_that_ends_in_an_error_gives_its_place_back(served: Served) -> None:
    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.GetResults(results("", 1), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_who_is_refused_is_not_told_to_come_back_at_the_same_moment() -> None:
    gate = CallLimit("calls", 0)
    delays = set()
    for _ in range(20):
        with pytest.raises(CapacityExhausted) as caught, gate:
            pass
        delays.add(caught.value.retry_after)
    assert len(delays) > 10
    assert gate.inside == 0
