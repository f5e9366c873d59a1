"""Progress that steps report: where from, how often it is written, and what is refused."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from headstart.testing import run_pipeline
from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Progress, Status, StepState
from headstart_service.pipeline.step import step
from headstart_service.sdk import report_progress
from headstart_service.values.fragments import with_estimate
from headstart_service.worker.cost_meter import CostMeter
from headstart_service.worker.executors.child_reports import ChildReports
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.progress import REPORTER
from headstart_service.worker.run import run
from headstart_service.worker.step_records import step_record
from tests.support.ledger import Ledger, claim_of, pipeline_of, tasks_left
from tests.support.waiting import wait_until


def reported(ledger: Ledger, name: str) -> list[tuple[float | None, str]]:
    """The progress in each write that shows a step as running."""
    reports = [
        pb.GetResultsResponse.FromString(record.fragment).steps[name]
        for write in ledger.writes
        for record in write.running
        if record.name == name
    ]
    return [
        (p.fraction if p.HasField("fraction") else None, p.message)
        for p in (report.progress for report in reports if report.HasField("progress"))
    ]


async def test_the_first_report_is_written_at_once_and_then_the_last_of_each_half_second() -> None:
    first, go = asyncio.Event(), asyncio.Event()

    @step()
    async def baking() -> int:
        report_progress(0.25, "kneading\ud800" + "x" * 300)
        first.set()
        await go.wait()
        for number in range(100):
            report_progress(message=f"loaf {number}")
            await asyncio.sleep(0)
        await asyncio.sleep(0.6)
        return 1

    pipeline, ledger = pipeline_of(baking), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await first.wait()
    await wait_until(lambda: bool(reported(ledger, "baking")))
    go.set()
    assert await running is Status.COMPLETED
    start, last = reported(ledger, "baking")
    assert start == (0.25, "kneading?" + "x" * 191)
    assert last == (None, "loaf 99")
    assert not ledger.report("baking").HasField("progress"), "it has ended"
    assert not tasks_left()


async def test_a_step_in_a_thread_reports_too() -> None:
    @step(runs_on="thread")
    def counting() -> int:
        for number in range(1000):
            report_progress(number / 1000)
        return 1

    @step()
    async def slow() -> int:
        await asyncio.sleep(0.1)
        return 1

    pipeline, ledger = pipeline_of(counting, slow), Ledger()
    await run(claim_of(pipeline), pipeline, {}, ledger)
    assert len(reported(ledger, "counting")) <= 1
    assert ledger.value("counting") == 1


@step(runs_on="process")
def counts_in_a_process(go: str) -> int:
    report_progress(0.25, "first")
    for number in range(1000):
        report_progress(number / 1000, f"number {number}")
    if (child := os.fork()) == 0:
        report_progress(1, "in a fork")
        os._exit(0)
    os.waitpid(child, 0)
    while not Path(go).exists():
        time.sleep(0.01)
    report_progress(1, "a last word that nobody needs")
    return 1


@step(runs_on="process")
def says_nothing() -> int:
    return 2


class Reports:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def report(self, progress: Progress) -> None:
        self.texts.append(progress.message)


async def test_a_step_in_a_process_reports_too(tmp_path: Path) -> None:
    go, reports, none = tmp_path / "go", Reports(), Reports()
    async with Executors(ExecutorRules(processes=1)) as executors:
        REPORTER.set(reports)
        arguments = {"go": str(go)}
        calling = asyncio.create_task(
            executors.call(counts_in_a_process, arguments, CostMeter()), name="counts"
        )
        await wait_until(lambda: "number 999" in reports.texts)
        go.touch()
        assert await calling == 1
        REPORTER.set(none)
        assert await executors.call(says_nothing, {}, CostMeter()) == 2
    assert reports.texts[0] == "first"
    assert "in a fork" not in reports.texts
    assert not none.texts


def test_reports_are_sent_ten_times_a_second_and_none_after_the_call() -> None:
    sent: list[Progress] = []
    began = time.monotonic()
    with ChildReports(sent.append) as reports:
        while len(sent) < 3:
            reports.report(Progress(message="early"))
        reports.report(Progress(message="late"))
        while sent[-1].message != "late":
            time.sleep(0.01)
        assert time.monotonic() - began >= 0.3
    reports.report(Progress(1.0))
    assert sent[-1].message == "late"
    assert len(sent) == 4


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
async def test_a_fraction_out_of_its_range_is_refused(fraction: float) -> None:
    @step()
    async def wrong() -> int:
        report_progress(fraction)
        return 1

    done = await run_pipeline(pipeline_of(wrong), {})
    assert str(done.exceptions["wrong"]) == f"fraction must be 0 to 1, or None, is {fraction}"


def test_outside_of_a_worker_nothing_happens() -> None:
    report_progress(0.5, "in a test of the function alone")


def test_an_estimate_leaves_the_progress() -> None:
    record = step_record("s", StepState.RUNNING, started_us=5, progress=Progress(0.5, "half"))
    data = with_estimate("s", StepState.RUNNING, record.fragment, (1, 2))
    report = pb.GetResultsResponse.FromString(data).steps["s"]
    assert (report.progress.fraction, report.progress.message) == (0.5, "half")
    assert (report.started_us, report.estimate.p90.nanos) == (5, 2000)
