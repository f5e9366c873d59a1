"""Figures: what they count, and how they are told."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter

import pytest
from prometheus_client.metrics_core import Metric

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Claim, Job, Lease, RunKey, Stats, Status
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.pipeline.registry import Registry
from headstart_service.telemetry.metrics.backlog import BacklogMetrics
from headstart_service.telemetry.metrics.calls import CallMetrics
from headstart_service.telemetry.metrics.child_pipe import ChildMetrics, answer_parent
from headstart_service.telemetry.metrics.exposition import Exposition, merged
from headstart_service.telemetry.metrics.instruments import SECONDS, Instruments
from headstart_service.telemetry.metrics.work import WorkerMetrics
from headstart_service.worker.worker_observer import ItemEnd, RunEnd, RunOutcome, StepOutcome
from tests.support.item_pipelines import CARRIERS
from tests.support.pipelines import NOOP
from tests.support.processes import ROOT
from tests.support.scrape import parsed, value
from tests.support.virtual_time import loop_time, run_virtually

RULES = ROOT / "deploy" / "prometheus"
SERVICE = pb.DESCRIPTOR.services_by_name["PrecomputeService"]


async def told(*collectors: object) -> dict[str, Metric]:
    return parsed(await Exposition(collectors).text())  # type: ignore[arg-type]


async def test_a_histogram_counts_a_value_on_a_bound_below_it_and_every_bucket_those_before():
    figures = Instruments()
    sizes = figures.histogram("sizes", "Sizes.", bounds=(1.0, 2.0, 4.0)).of()
    for size in (0.5, 1, 2, 3, 4, 5):
        sizes.note(size)
    [metric] = (await told(figures)).values()
    buckets = {s.labels["le"]: s.value for s in metric.samples if s.name.endswith("_bucket")}
    assert buckets == {"1.0": 2, "2.0": 3, "4.0": 5, "+Inf": 6}
    assert value({metric.name: metric}, "headstart_sizes_sum") == 15.5
    assert (SECONDS[0], SECONDS[-1]) == (0.0001, 60)


async def test_a_ready_result_counts_as_a_call_and_as_a_result():
    figures = CallMetrics(lambda: None)
    figures.ready(0.00005, True)
    figures.ready(0.2, False)
    figures.ended("GetResults", "OK", 3.0)
    figures.results("waited", 3.0)
    for _ in range(2):  # telling changes nothing
        now = await told(figures)
        assert value(now, "headstart_requests_total", method="GetResults", code="OK") == 3
        assert value(now, "headstart_request_duration_seconds_count", method="GetResults") == 3
        seconds = value(now, "headstart_request_duration_seconds_sum", method="GetResults")
        assert seconds == pytest.approx(3.20005)
        count = "headstart_results_duration_seconds_count"
        found = {o: value(now, count, outcome=o) for o in ("ready", "waited", "partial", "missing")}
        assert found == {"ready": 1, "waited": 1, "partial": 1, "missing": 0}


async def test_a_pipeline_that_is_not_known_is_reported_as_other():
    figures = WorkerMetrics(Registry([NOOP]))
    for pipeline in ("noop", "somebody's text"):
        job = Job(0, "1-1", RunKey("default", "k"), "1-1")
        with figures.run(
            Claim(Lease(job, 2), 1, pipeline, b"", {}, 0), RunOutcome(state=RunEnd.FAILED)
        ):
            pass
    now = await told(figures)
    count = "headstart_run_duration_seconds_count"
    assert value(now, count, pipeline="noop", state="failed") == 1
    assert value(now, count, pipeline="other", state="failed") == 1
    assert value(now, "headstart_run_redeliveries_total", pipeline="other") == 1
    names = {s.labels.get("pipeline") for metric in now.values() for s in metric.samples}
    assert names == {"noop", "other"}


async def test_items_are_counted_by_how_they_ended() -> None:
    figures = WorkerMetrics(Registry([NOOP, CARRIERS]))
    claim = Claim(Lease(Job(0, "1-1", RunKey("default", "k"), "1"), 1), 1, "carriers", b"", {}, 0)
    outcome = StepOutcome(items=Counter({ItemEnd.COMPLETED: 38, ItemEnd.FAILED: 2}))
    for _ in range(2):
        with figures.step(claim, "rates", outcome):
            pass
    found = {
        (s.labels["pipeline"], s.labels["step"], s.labels["outcome"]): s.value
        for s in (await told(figures))["headstart_step_items_total"].samples
    }
    carriers = {"completed": 76, "failed": 4, "reused": 0}
    assert found == {("carriers", "rates", end): count for end, count in carriers.items()}


async def test_what_alerts_count_is_exported_before_it_happens_so_that_the_first_time_counts():
    now = await told(CallMetrics(lambda: None), WorkerMetrics(Registry([NOOP])))
    requests = now["headstart_requests_total"].samples
    rules = (RULES / "recording.yaml").read_text() + (RULES / "alerts.yaml").read_text()
    found = re.findall(r'\bcode=~?"([A-Z_|]+)"', rules)
    codes = {code for each in found for code in each.split("|")}
    assert codes == {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
    methods = {method.name for method in SERVICE.methods}
    assert {(s.labels["method"], s.labels["code"]) for s in requests} == {
        (method, code) for method in methods for code in codes | {"OK"}
    }
    runs, steps = "headstart_run_duration_seconds_count", "headstart_step_duration_seconds_count"
    assert value(now, runs, pipeline="other", state="failed") == 0
    for state in ("completed", "failed"):
        assert value(now, runs, pipeline="noop", state=state) == 0
        for step in NOOP.by_name:
            assert value(now, steps, pipeline="noop", step=step, state=state) == 0


def test_texts_of_two_processes_become_one_with_each_metric_once():
    one = '# HELP a A.\n# TYPE a gauge\na{p="1"} 1\n# HELP b B.\n# TYPE b gauge\n'
    two = '# HELP b B.\n# TYPE b gauge\nb 2\n# HELP a A.\n# TYPE a gauge\na{p="2"} 3\n'
    whole = '# HELP a A.\n# TYPE a gauge\na{p="1"} 1\na{p="2"} 3\n'
    assert merged([one, two]) == whole + "# HELP b B.\n# TYPE b gauge\nb 2\n"
    assert merged([one, ""]) == one


def test_the_store_is_asked_once_a_second_and_not_waited_for_when_it_is_away() -> None:
    asked = 0
    answers = True

    async def stats() -> Stats:
        nonlocal asked
        asked += 1
        if not answers:
            await asyncio.sleep(60)
        return Stats({Status.PENDING: 2}, 1, 4.5)

    async def scraped() -> None:
        nonlocal answers
        backlog = BacklogMetrics(stats, 1000)
        await backlog.refresh()
        await asyncio.sleep(0.9)
        await backlog.refresh()
        assert asked == 1
        now = await told(backlog)
        assert value(now, "headstart_queue_oldest_wait_seconds") == 4.5
        assert value(now, "headstart_runs", status="completed") == 0
        answers = False
        await asyncio.sleep(0.1)
        await backlog.refresh()
        assert (asked, loop_time()) == (2, 1.5)
        now = await told(backlog)
        assert now["headstart_queue_depth"].samples == now["headstart_runs"].samples == []
        assert value(now, "headstart_runs_limit") == 1000

    run_virtually(scraped())


async def test_a_store_that_refuses_leaves_its_figures_out():
    async def away() -> Stats:
        raise StoreUnavailable("away")

    backlog = BacklogMetrics(away, 1)
    await backlog.refresh()
    assert (await told(backlog))["headstart_runs"].samples == []


async def test_a_child_answers_its_parent_each_time_and_is_not_waited_for_when_it_hangs():
    parent = ChildMetrics(patience=10)
    assert await parent.text() == ""
    texts = iter(["one", "", "x" * 300_000])
    hangs = asyncio.Event()

    async def text() -> str:
        if hangs.is_set():
            await asyncio.sleep(60)
        return next(texts)

    async with parent.life() as descriptor:
        own = os.dup(descriptor)  # as a child inherits it
        child = asyncio.create_task(answer_parent(own, text))
        assert await parent.text() == "one"
        assert await parent.text() == ""
        assert len(await parent.text()) == 300_000
        hangs.set()
        parent.patience = 0.05
        assert await parent.text() == ""
        child.cancel()
        await asyncio.gather(child, return_exceptions=True)
    assert await parent.text() == ""


async def test_what_goes_wrong_with_a_childs_figures_does_not_end_it():
    parent = ChildMetrics()

    async def broken() -> str:
        raise ValueError("a bug")

    async with parent.life() as descriptor:
        own = os.dup(descriptor)
        child = asyncio.create_task(answer_parent(own, broken))
        assert await parent.text() == ""
        assert not child.done()
        child.cancel()
        await asyncio.gather(child, return_exceptions=True)
