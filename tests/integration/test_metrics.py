"""/metrics of real processes: what it tells, to whom, and that docs/metrics.md tells the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from headstart import NotFound, PrecomputeClient
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, children, serving, worker
from tests.support.scrape import asked, documented, metrics_of, value
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
WITHOUT_SAMPLES = {
    "headstart_certificate_expiry_timestamp_seconds",
    "headstart_queue_unserved_runs",
    "headstart_budget_used_up_tokens",
    "headstart_provider_breaker_open",
    "headstart_provider_call_duration_seconds",
    "headstart_provider_healthy",
    "headstart_provider_over_budget_total",
    "headstart_provider_paused_seconds_total",
    "headstart_provider_wait_seconds",
    "headstart_provider_waiting",
    "headstart_step_items_total",
}
"""Of a server without TLS whose worker has every pipeline, none of them with `each`."""


@pytest.fixture
async def served(valkey: Valkey) -> AsyncIterator[tuple[Process, PrecomputeClient]]:
    """`serve` with its worker, and a client of it."""
    async with serving(HEADSTART_REDIS_URL=valkey.url, **LIGHT) as (process, address):
        async with PrecomputeClient(address) as client:
            yield process, client


async def with_worker(process: Process) -> dict[str, Metric]:
    """Its metrics with those of its worker, which a scrape leaves out when it is not quick."""

    async def whole() -> dict[str, Metric] | None:
        told = await metrics_of(process)
        return told if "headstart_worker_slots" in told else None

    return await wait_until(whole, 30) or {}


async def load(client: PrecomputeClient) -> None:
    """One result of each kind, and a stream."""
    await client.start("k", "noop", {})
    await client.get_results("k", wait=20)
    for _ in range(3):
        await client.get_results("k")
    async for _ in client.watch_results("k"):
        pass
    with pytest.raises(NotFound):
        await client.get_results("unknown")


@pytest.mark.promise("Callers' text is no metric label", "`other`")
async def test_a_server_counts_what_happened_in_it_and_in_its_worker_and_shows_no_text_of_callers(
    served: tuple[Process, PrecomputeClient], tmp_path: Path
):
    process, client = served
    await load(client)
    await client.start("secret-key", "probe", {"directory": str(tmp_path)})
    await client.get_results("secret-key", wait=0.3)
    waiting = asyncio.create_task(client.get_results("secret-key", wait=20))

    async def waits() -> bool:
        now = await metrics_of(process)
        return value(now, "headstart_calls_in_progress", kind="GetResults") == 1

    await wait_until(waits)

    async def held() -> bool:
        return value(await with_worker(process), "headstart_worker_runs") == 1

    await wait_until(held)
    (tmp_path / "go").touch()
    await waiting
    # The worker notes the end of a run after it was announced.
    done = {"pipeline": "probe", "state": "completed"}

    async def noted() -> bool:
        now = await with_worker(process)
        return value(now, "headstart_run_duration_seconds_count", **done) == 1

    await wait_until(noted)
    told = await with_worker(process)
    count = "headstart_results_duration_seconds_count"
    found = {o: value(told, count, outcome=o) for o in ("waited", "partial", "missing")}
    # The first wait for `noop` may find it done.
    assert found["waited"] in (1, 2)
    assert value(told, count, outcome="ready") == 5 - found["waited"]
    assert found["partial"] == found["missing"] == 1
    assert value(told, "headstart_requests_total", method="GetResults", code="OK") == 6
    assert value(told, "headstart_requests_total", method="GetResults", code="NOT_FOUND") == 1
    assert value(told, "headstart_requests_total", method="WatchResults", code="OK") == 1
    assert value(told, "headstart_request_duration_seconds_count", method="GetResults") == 7
    assert value(told, "headstart_starts_total", outcome="started") == 2
    assert value(told, "headstart_near_cache_lookups_total", result="hit") >= 2
    assert value(told, "headstart_near_cache_bytes") > 0

    async def counted() -> bool:  # a busy store is left out of a scrape
        return value(await metrics_of(process), "headstart_runs", status="completed") == 2

    await wait_until(counted)
    step = {"pipeline": "probe", "step": "gated", "state": "completed"}
    assert value(told, "headstart_step_duration_seconds_count", **step) == 1
    assert value(told, "headstart_step_duration_seconds_sum", **step) > 0
    trip = "headstart_store_trip_duration_seconds_count"
    # More where the machine stood still: a trip that takes too long is made again.
    assert value(told, trip, process="api", command="start") >= 2
    assert value(told, trip, process="worker", command="claim") >= 2
    resident = {
        p: value(told, "process_resident_memory_bytes", process=p) for p in ("api", "worker")
    }
    assert resident["api"] == pytest.approx(process.resident, rel=0.2)
    assert resident["worker"] > 10e6
    text = (await asked(process)).text.replace('pool="default"', "")  # a pool's name is no caller's
    assert not any(word in text for word in ("secret", "default", str(tmp_path)))


async def test_the_page_of_metrics_and_what_is_told_are_the_same(
    served: tuple[Process, PrecomputeClient], valkey: Valkey
):
    process, client = served
    await load(client)
    async with worker(valkey.url, **LIGHT) as alone:
        by_server, by_worker = await with_worker(process), await metrics_of(alone)
    page = documented()
    assert {n: m.type for n, m in by_server.items()} == {n: row.kind for n, row in page.items()}
    assert set(by_worker) == {name for name, row in page.items() if "worker" in row.processes}
    told = {
        name: {frozenset(s.labels) - {"le"} for s in metric.samples}
        for name, metric in by_server.items()
    }
    assert {name for name, labels in told.items() if not labels} == WITHOUT_SAMPLES
    assert {n: labels for n, labels in told.items() if labels} == {
        name: {row.labels} for name, row in page.items() if name not in WITHOUT_SAMPLES
    }
    # A worker by itself tells what a server tells of its own, and nothing else.
    assert set(by_worker) < set(by_server)
    for name, metric in by_worker.items():
        for sample in metric.samples:
            assert sample.labels.get("process", "worker") == "worker", name


@pytest.mark.observability
async def test_a_worker_that_is_lost_is_counted_and_its_figures_begin_anew(
    served: tuple[Process, PrecomputeClient],
):
    process, client = served
    await load(client)
    [child] = children(process.pid)
    os.kill(child, signal.SIGKILL)
    await process.says("the worker ended with code -9")

    told = await with_worker(process)
    assert value(told, "headstart_worker_restarts_total") == 1
    run = {"pipeline": "noop", "state": "completed"}
    assert value(told, "headstart_run_duration_seconds_count", **run) == 0


async def test_a_scrape_goes_on_without_the_store(valkey: Valkey):
    async with api(valkey.url, **LIGHT) as (process, _):

        async def known() -> bool:  # a busy store is left out of a scrape
            return value(await metrics_of(process), "headstart_queue_depth") == 0

        await wait_until(known)
        await valkey.kill()

        async def away() -> bool:
            return not (await metrics_of(process))["headstart_queue_depth"].samples

        await wait_until(away)
        told = await metrics_of(process)
        assert value(told, "headstart_runs_limit") == 1000

        async def pinged() -> bool:
            errors = (await metrics_of(process))["headstart_store_errors_total"]
            return any(s.labels["command"] == "ping" for s in errors.samples)

        await wait_until(pinged)

        async def unready() -> bool:
            now = await metrics_of(process)
            known = value(now, "headstart_store_unreachable_partitions", process="api")
            return value(now, "headstart_ready") == 0 and known == 1

        await wait_until(unready)


@pytest.mark.promise("Metrics need `metrics` or `admin`", "`http/metrics`")
async def test_with_tokens_metrics_want_their_verb_on_both_kinds_of_process(
    valkey: Valkey, tmp_path: Path
):
    tokens = tokens_of(shop=("*", "read,write"), scraper=("*", "metrics"), ops=("*", "admin"))
    env = {"HEADSTART_TOKENS": str(tokens.written(tmp_path / "tokens")), **LIGHT}
    async with api(valkey.url, **env) as (server, _), worker(valkey.url, **env) as working:
        for process in (server, working):
            refused = await asked(process)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            shop = await asked(process, Authorization=f"Bearer {tokens.by_name['shop']}")
            wrong = await asked(process, Authorization="Bearer hst_wrong")
            assert (wrong.status, shop.status) == (401, 403)
            for answer in (refused, shop, wrong):
                assert "headstart_" not in answer.text
            for name in ("scraper", "ops"):
                scraped = await asked(process, Authorization=f"Bearer {tokens.by_name[name]}")
                assert scraped.status == 200
                assert "headstart_build_info" in scraped.text


async def test_metrics_can_be_turned_off(valkey: Valkey):
    env = {"HEADSTART_METRICS": "false", **LIGHT}
    async with api(valkey.url, **env) as (server, _), worker(valkey.url, **env) as working:
        for process in (server, working):
            assert (await asked(process)).status == 404
            assert (await asked(process, "livez")).status == 200
