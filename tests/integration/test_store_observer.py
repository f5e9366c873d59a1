"""What the store tells those who watch it, of a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from prometheus_client.metrics_core import Metric

from headstart_service.domain import Offer, RunKey, RunPlan, Status
from headstart_service.domain.errors import RecordDamaged, RunNotFound, StoreUnavailable
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import BLOCKING, WORKER
from headstart_service.store.job_queue import MAX_TRIES, RedisJobQueue
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.store import WorkerStoreMetrics
from tests.support.scrape import parsed, value
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

PLAN = RunPlan("probe", b"{}", "v1", "d", {"first": "f"})
OFFERS = (Offer("probe", "v1", {}),)


@dataclass
class Watched:
    store: RedisStore
    queue: RedisJobQueue
    figures: WorkerStoreMetrics

    async def told(self) -> dict[str, Metric]:
        return parsed(await Exposition([self.figures]).text())

    async def start(self, name: str) -> RunKey:
        key = RunKey("default", name)
        await self.store.start(key, PLAN, 60, restart=False)
        return key


@pytest.fixture
async def watched(valkey: Valkey) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis_client(valkey.url, WORKER))
        blocking = await stack.enter_async_context(redis_client(valkey.url, BLOCKING))
        figures = WorkerStoreMetrics("worker")
        rules = StoreRules(partitions=1, max_records=2, namespace_max=0, failure_ttl=60)
        store = RedisStore(client, rules, budget=5, connections=2, observer=figures)
        queue = RedisJobQueue(client, blocking, rules, lease=9, budget=5, observer=figures)
        figures.watch_breaker(lambda: store.unreachable)
        stack.push_async_callback(store.aclose)
        stack.push_async_callback(queue.aclose)
        yield Watched(store, queue, figures)


async def test_evictions_are_reported_by_their_reason(watched: Watched):
    for name in ("unread", "read"):
        await watched.store.cancel(await watched.start(name))
    await watched.store.read(RunKey("default", "read"))
    evicted = "headstart_evictions_total"
    await watched.start("third")
    now = await watched.told()
    kinds = ("read", "unread", "namespace", "expired")
    assert [value(now, evicted, process="worker", kind=k) for k in kinds] == [1, 0, 0, 0]
    await watched.start("fourth")
    now = await watched.told()
    assert [value(now, evicted, process="worker", kind=k) for k in kinds] == [1, 1, 0, 0]
    with pytest.raises(RunNotFound):
        await watched.store.read(RunKey("default", "unread"))


async def test_a_run_given_to_its_own_namespaces_place_and_one_that_expires_are_reported(
    watched: Watched, valkey: Valkey
):
    figures = watched.figures
    async with redis_client(valkey.url, WORKER) as client:
        rules = StoreRules(partitions=1, max_records=9, namespace_max=1, failure_ttl=0.001)
        store = RedisStore(client, rules, budget=5, connections=2, observer=figures)
        own = RunKey("own", "a")
        await store.start(own, PLAN, 60, restart=False)
        await watched.store.cancel(own)
        await store.start(RunKey("own", "b"), PLAN, 60, restart=False)
        await store.cancel(RunKey("own", "b"))  # its failure lives a millisecond
        await store.aclose()

    async def swept() -> bool:
        await watched.queue.sweep()
        told = await watched.told()
        return value(told, "headstart_evictions_total", process="worker", kind="expired") == 1

    await wait_until(swept)
    told = await watched.told()
    assert value(told, "headstart_evictions_total", process="worker", kind="namespace") == 1


@pytest.mark.promise(
    "Foreign changes are counted in `headstart_damaged_records_total`", "on every read"
)
async def test_a_damaged_record_and_a_run_that_is_given_up_are_reported(
    watched: Watched, valkey: Valkey
):
    key = await watched.start("damaged")
    client = valkey.client()
    await client.hset(PartitionKeys(0).record(key), "about", "what is this")
    await client.aclose()
    with pytest.raises(RecordDamaged):
        await watched.store.read(key)
    assert value(await watched.told(), "headstart_damaged_records_total", process="worker") == 1

    await watched.queue.prepare_queue()
    await watched.start("fatal")
    jobs = await watched.queue.next_jobs(0, "w", 9, 1)
    damaged, job = jobs
    assert await watched.queue.claim(damaged, "w", OFFERS) is None
    for _ in range(MAX_TRIES):
        assert await watched.queue.claim(job, "w", OFFERS) is not None
    assert await watched.queue.claim(job, "w", OFFERS) is None
    told = await watched.told()
    assert value(told, "headstart_runs_given_up_total") == 1
    assert value(told, "headstart_damaged_records_total", process="worker") == 2, (
        "read, and dropped"
    )
    trips = "headstart_store_trip_duration_seconds_count"
    assert value(told, trips, process="worker", command="claim") == MAX_TRIES + 2
    assert (
        await watched.store.status(job.key)
    ).summary.error == "worker lost: in each try it ended, was blocked or lost Redis"


async def test_the_oldest_job_and_its_wait_are_counted(watched: Watched):
    assert (await watched.store.stats("")).oldest_wait == 0
    await watched.start("waits")
    first = (await watched.store.stats("")).oldest_wait
    assert 0 <= first < 60
    await watched.queue.prepare_queue()
    assert (await watched.store.stats("")).oldest_wait >= first
    assert len(await watched.queue.next_jobs(0, "w", 9, 1)) == 1
    assert (await watched.store.stats("")).oldest_wait == 0


async def test_failures_are_reported_by_their_kind_and_the_breaker_while_it_is_open(
    watched: Watched, valkey: Valkey
):
    await watched.start("k")
    await valkey.kill()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await watched.store.read(RunKey("default", "k"))
    told = await watched.told()
    errors = "headstart_store_errors_total"
    assert value(told, errors, process="worker", command="read", error="lost") >= 3
    assert value(told, errors, process="worker", command="read", error="skipped") >= 1
    assert value(told, "headstart_store_unreachable_partitions", process="worker") == 1


@pytest.mark.parametrize("damage", [("about", "what is this"), ("s:one", "")])
async def test_looking_counts_and_logs_no_damage(
    watched: Watched, valkey: Valkey, caplog: pytest.LogCaptureFixture, damage: tuple[str, str]
):
    key = await watched.start("damaged")
    client = valkey.client()
    await client.hset(PartitionKeys(0).record(key), *damage)
    await client.aclose()
    with pytest.raises(RecordDamaged):
        await watched.store.inspect(key)
    await watched.store.list("", list(Status), None, 9, quiet=True)
    assert caplog.text == ""
    counted = "headstart_damaged_records_total"
    assert value(await watched.told(), counted, process="worker") == 0
    await watched.store.list("", list(Status), None, 9)
    in_lists = damage[0] == "about"
    assert value(await watched.told(), counted, process="worker") == in_lists
    assert ("default:damaged" in caplog.text) == in_lists
