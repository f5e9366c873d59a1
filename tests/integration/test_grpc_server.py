"""The real server and servicer in this process, on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from headstart._transport.endpoint import endpoint
from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.grpc_server import SERVER_OPTIONS, build_server
from headstart_service.api.health import Health
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import Waiting
from headstart_service.base.service_methods import SERVICE
from headstart_service.domain import Snapshot
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.store.connect import BLOCKING, WORKER, open_client
from headstart_service.store.events import subscription
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules
from headstart_service.worker.worker import Worker
from headstart_service.worker.worker_rules import WorkerRules
from tests.support.ledger import pipeline_of
from tests.support.requests import json_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

STATUS = health_pb2.HealthCheckResponse.ServingStatus


class CountedReads(RedisStore):
    """A store that counts the reads that have returned."""

    reads = 0

    async def read(self, *key: Any, **wanted: Any) -> Snapshot:
        found = await super().read(*key, **wanted)
        self.reads += 1
        return found


@dataclass
class Served:
    """A server, its stub, and a worker whose slow step waits for `go`."""

    address: str
    stub: Any
    health: Health
    store: CountedReads
    waiting: Waiting
    cache: NearCache
    go: asyncio.Event
    working: Any

    async def start(self, key: str = "k", **fields: Any) -> pb.StartPrecomputeResponse:
        spec = pb.CustomSpec(pipeline="test")
        return await self.stub.StartPrecompute(
            pb.StartPrecomputeRequest(key=key, custom=spec, **fields), timeout=5
        )

    async def get(
        self, key: str = "k", wait: float = 0.0, deadline: float = 10.0, **fields: Any
    ) -> pb.GetResultsResponse:
        request = pb.GetResultsRequest(key=key, **fields)
        request.wait.FromMilliseconds(round(wait * 1000))
        return await self.stub.GetResults(request, timeout=deadline)


@step(required=True)
async def quick() -> list[float]:
    return [0.5, 0.25]


@step()
async def slow(quick: list[float], go: asyncio.Event) -> bytes:
    await go.wait()
    return b"done"


PIPELINE = pipeline_of(quick, slow)


@pytest.fixture
async def served(valkey: Valkey) -> AsyncIterator[Served]:
    rules = StoreRules(partitions=1, max_records=3, failure_ttl=60.0)
    registry = Registry([PIPELINE, BRIDGING])
    go = asyncio.Event()
    async with AsyncExitStack() as stack:

        async def client(patience: Any) -> Any:
            made = open_client(valkey.url, patience)
            stack.push_async_callback(made.aclose)
            return made

        # More patient than the real one: a busy machine is no outage.
        store = CountedReads(await client(WORKER), rules, budget=2.0, connections=3)
        events = await client(BLOCKING)
        cache = NearCache(1_000_000)
        waiting = Waiting(store, [lambda: subscription(events, store.channels)], cache)
        reader = ResultReader(waiting, cache, registry)
        health = Health()
        await health.set_serving(serving=False)
        api_rules = ApiRules(result_ttl=600.0, max_records=3)
        server = build_server(Dependencies(store, registry, reader, api_rules), health)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        listening = asyncio.create_task(waiting.run())

        async def stop_listening() -> None:
            listening.cancel()
            await asyncio.wait({listening})

        stack.push_async_callback(stop_listening)
        await wait_until(lambda: waiting.receiving)
        queue = RedisJobQueue(
            await client(WORKER), await client(BLOCKING), rules, lease=30.0, budget=2.0
        )

        @asynccontextmanager
        async def working() -> AsyncIterator[None]:
            worker_rules = WorkerRules(name="w", concurrency=4, runs=4, lease=30.0, drain=0.1)
            worker = Worker(queue, registry, {"go": go}, worker_rules)
            task = asyncio.create_task(worker.serve())
            yield
            worker.stop()
            await task

        address = f"127.0.0.1:{port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub = pb_grpc.PrecomputeServiceStub(channel)
        yield Served(address, stub, health, store, waiting, cache, go, working)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_reflection_lists_the_service_and_its_methods(served: Served) -> None:
    def look() -> tuple[set[str], set[str]]:
        with grpc.insecure_channel(served.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol(SERVICE)
            methods = {method.name for method in file.service[0].method}
            return set(database.get_services()), methods

    services, methods = await asyncio.to_thread(look)
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    assert methods == {
        *("BatchStartPrecomputes", "BatchGetResults", "DeletePrecompute", "TouchPrecompute"),
        "CreateRunToken",
        "StartPrecompute",
        "GetResults",
        "WatchResults",
        "GetStatus",
        "CancelPrecompute",
        "ReportStep",
        "ListPrecomputes",
        "ListPipelines",
        "GetStats",
    }


async def test_health_is_not_serving_until_it_is_set_and_after_shut_down(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def health() -> set[int]:
            return {
                (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
                for name in ("", SERVICE)
            }

        assert await health() == {STATUS.NOT_SERVING}
        await served.health.set_serving(serving=True)
        assert await health() == {STATUS.SERVING}
        await served.health.shut_down()
        await served.health.set_serving(serving=True)
        assert await health() == {STATUS.NOT_SERVING}


async def test_a_run_from_its_start_to_its_results(served: Served) -> None:
    started = await served.start()
    assert (started.key, started.namespace, started.revision) == ("k", "default", 1)
    assert started.outcome == pb.START_OUTCOME_STARTED
    assert (await served.start()).outcome == pb.START_OUTCOME_JOINED
    assert (await served.get()).status == pb.PRECOMPUTE_STATUS_PENDING
    async with served.working():
        partial = await served.get(wait=5, required_steps=["quick"])
        assert partial.status == pb.PRECOMPUTE_STATUS_IN_PROGRESS
        assert json_of(partial, "quick")[1] == 0.25
        assert "slow" not in partial.custom.artifacts
        waiting = asyncio.create_task(served.get(wait=5))
        await wait_until(lambda: served.waiting.waiters)
        served.go.set()
        whole = await waiting
    assert whole.status == pb.PRECOMPUTE_STATUS_COMPLETED
    assert whole.custom.artifacts["slow"].data == b"done"
    assert {name: report.state for name, report in whole.steps.items()} == {
        "quick": pb.STEP_STATE_COMPLETED,
        "slow": pb.STEP_STATE_COMPLETED,
    }
    assert whole.started_at.ToMicroseconds() <= whole.completed_at.ToMicroseconds()
    assert whole.pipeline == "test"
    assert await served.get() == whole
    assert len(served.cache) == 1
    assert (await served.start()).outcome == pb.START_OUTCOME_REUSED


async def test_an_answer_comes_before_the_deadline(served: Served) -> None:
    await served.start()
    partial = await served.get(wait=60, deadline=1.5)
    assert partial.status == pb.PRECOMPUTE_STATUS_PENDING


async def test_an_answer_comes_before_the_deadline_though_the_store_goes_away(
    served: Served, valkey: Valkey
) -> None:
    await served.start()
    waiting = asyncio.create_task(served.get(wait=60, deadline=2.5))
    # Until its first read is over, an outage would be its answer.
    await wait_until(lambda: served.store.reads)
    await valkey.kill()
    assert (await waiting).status == pb.PRECOMPUTE_STATUS_PENDING


async def test_a_store_that_is_away_is_told_though_the_caller_would_wait(
    served: Served, valkey: Valkey
) -> None:
    await served.start()
    await valkey.kill()
    began = asyncio.get_running_loop().time()
    assert await code_of(served.get(wait=8)) is grpc.StatusCode.UNAVAILABLE
    assert asyncio.get_running_loop().time() - began < 4


async def test_a_watch_ends_with_the_run(served: Served) -> None:
    await served.start()
    statuses = []
    async with served.working():
        async for change in served.stub.WatchResults(pb.WatchResultsRequest(key="k"), timeout=10):
            statuses.append(change.results.status)
            if "quick" in change.results.custom.artifacts:
                served.go.set()
    assert statuses[-1] == pb.PRECOMPUTE_STATUS_COMPLETED
    assert len(statuses) >= 3


async def test_a_watch_that_its_caller_leaves_stops_listening(served: Served) -> None:
    await served.start()
    watch = served.stub.WatchResults(pb.WatchResultsRequest(key="k"))
    assert (await watch.read()).results.key == "k"
    await wait_until(lambda: served.waiting.waiters == 1)
    watch.cancel()
    await wait_until(lambda: served.waiting.waiters == 0)


async def test_status_cancel_list_and_stats_agree(served: Served) -> None:
    await served.start("a")
    await served.start("b")
    cancelled = await served.stub.CancelPrecompute(pb.CancelPrecomputeRequest(key="a"), timeout=5)
    assert cancelled.cancelled
    assert cancelled.status == pb.PRECOMPUTE_STATUS_CANCELLED
    status = await served.stub.GetStatus(pb.GetStatusRequest(key="a"), timeout=5)
    assert status.status == pb.PRECOMPUTE_STATUS_CANCELLED
    assert set(status.steps) == {"quick", "slow"}
    page = await served.stub.ListPrecomputes(pb.ListPrecomputesRequest(page_size=1), timeout=5)
    assert [p.key for p in page.precomputes] == ["a"]
    rest = await served.stub.ListPrecomputes(
        pb.ListPrecomputesRequest(page_size=1, page_token=page.next_page_token), timeout=5
    )
    assert [p.key for p in rest.precomputes] == ["b"]
    assert rest.next_page_token == ""
    stats = await served.stub.GetStats(pb.GetStatsRequest(), timeout=5)
    assert dict(stats.status_counts) == {"cancelled": 1, "pending": 1}
    assert (stats.total_cached, stats.active_tasks, stats.max_cached) == (2, 0, 3)
    pipelines = await served.stub.ListPipelines(pb.ListPipelinesRequest(), timeout=5)
    assert [p.name for p in pipelines.pipelines] == ["bridging", "test"]


async def test_a_full_store_of_live_runs_refuses_with_a_delay(served: Served) -> None:
    for key in "abc":
        await served.start(key)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.start("d")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert [detail.TypeName() for detail in status.details] == ["google.rpc.RetryInfo"]


async def test_unknown_keys_are_not_found_by_every_method(served: Served) -> None:
    stub = served.stub
    calls = [
        served.get("x"),
        stub.GetStatus(pb.GetStatusRequest(key="x"), timeout=5),
        stub.CancelPrecompute(pb.CancelPrecomputeRequest(key="x"), timeout=5),
        stub.WatchResults(pb.WatchResultsRequest(key="x"), timeout=5).read(),
    ]
    for call in calls:
        assert await code_of(call) is grpc.StatusCode.NOT_FOUND


async def test_a_wrong_request_is_an_invalid_argument(served: Served) -> None:
    assert await code_of(served.get("")) is grpc.StatusCode.INVALID_ARGUMENT
    assert await code_of(served.start("")) is grpc.StatusCode.INVALID_ARGUMENT


def test_the_server_accepts_pings_as_often_as_clients_send_them() -> None:
    sent = dict(endpoint("headstart:50051").channel_options())
    accepted = dict(SERVER_OPTIONS)
    assert accepted["grpc.http2.min_ping_interval_without_data_ms"] < sent["grpc.keepalive_time_ms"]
    assert accepted["grpc.keepalive_permit_without_calls"] == 1
    assert sent["grpc.keepalive_permit_without_calls"] == 1
    assert sent["grpc.http2.max_pings_without_data"] == 0, "no limit"
    assert sent["grpc.keepalive_time_ms"] < 240_000, "the idle limit of large clouds' balancers"
