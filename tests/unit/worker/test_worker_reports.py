"""A run that takes steps from callers: what stops, what goes on, and with which value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headstart_service.domain import FailureReason, Lease, Status, StepRecord, StepState
from headstart_service.domain.errors import StepFailed, StepsReported
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import report_fragment
from headstart_service.worker.reported_steps import ReportedSteps
from headstart_service.worker.run import run
from headstart_service.worker.step_runs import StepsElsewhere, failed
from tests.support.ledger import Ledger, claim_of, pipeline_of, tasks_left
from tests.support.waiting import wait_until

COMPLETED, FAILED, SKIPPED = StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED


class SharedLedger(Ledger):
    """A ledger that callers report to as well: as the store does, it refuses to overwrite them."""

    def __init__(self, reports: ReportedSteps) -> None:
        super().__init__()
        self.reported: dict[str, StepRecord] = {}
        self._reports = reports

    def report(self, name: str, value: object, *, tell: bool = True) -> None:
        fragment = ArtifactCodec().encode(name, value) + report_fragment(name, COMPLETED)
        self.reported[name] = StepRecord(name, COMPLETED, fragment)
        if tell:
            self._reports.pass_on((name,))

    def _refuse(self, records: Sequence[StepRecord]) -> None:
        taken = [self.reported[r.name] for r in records if r.name in self.reported]
        if taken:
            raise StepsReported(taken)

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        await self.gate.wait()
        self._refuse([*ended, *running])
        await super().commit(lease, ended, running)

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        await self.gate.wait()
        self._refuse(ended)
        await super().finish(lease, ended, status, error, failure_reason)


@pytest.fixture
def reports() -> ReportedSteps:
    return ReportedSteps()


@pytest.fixture
def ledger(reports: ReportedSteps) -> SharedLedger:
    return SharedLedger(reports)


async def test_a_running_step_is_stopped_and_the_run_goes_on_with_the_reported_value(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    @step(required=True)
    async def bridge() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    @step()
    async def scored(bridge: str) -> str:
        return f"scored {bridge}"

    pipeline = pipeline_of(bridge, scored)
    before = tasks_left()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reports=reports))
    await begun.wait()
    ledger.report("bridge", "theirs")
    assert await running is Status.COMPLETED
    assert stopped.is_set()
    assert ledger.value("scored") == "scored theirs"
    assert "bridge" not in ledger.states or ledger.states["bridge"] is StepState.RUNNING
    assert tasks_left() == before


async def test_what_was_made_of_our_own_value_is_made_again(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    """The report came between the end of our step and its write."""
    made: list[str] = []
    go = asyncio.Event()

    @step()
    async def bridge() -> str:
        return "ours"

    @step()
    async def scored(bridge: str) -> str:
        made.append(bridge)
        return f"scored {bridge}"

    @step()
    async def told(scored: str) -> str:
        return f"told {scored}"

    @step()
    async def other() -> str:
        await go.wait()
        return "other"

    pipeline = pipeline_of(bridge, scored, told, other)
    ledger.gate.clear()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reports=reports))
    await wait_until(lambda: made == ["ours"])
    ledger.report("bridge", "theirs", tell=False)
    ledger.gate.set()
    go.set()
    assert await running is Status.COMPLETED
    assert made == ["ours", "theirs"]
    assert ledger.value("told") == "told scored theirs"
    assert ledger.states == {"scored": COMPLETED, "told": COMPLETED, "other": COMPLETED}


async def test_a_failure_is_forgotten_when_a_caller_has_the_result(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    @step(required=True)
    async def bridge() -> str:
        raise StepFailed("no model")

    @step(required=True)
    async def scored(bridge: str) -> str:
        return f"scored {bridge}"

    pipeline = pipeline_of(bridge, scored)
    ledger.report("bridge", "theirs", tell=False)
    assert await run(claim_of(pipeline), pipeline, {}, ledger, reports=reports) is Status.COMPLETED
    assert ledger.value("scored") == "scored theirs"
    assert ledger.end is not None
    assert ledger.end.error == ""


async def test_the_last_step_of_a_run_may_be_reported(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    begun = asyncio.Event()

    @step(required=True)
    async def bridge() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    pipeline = pipeline_of(bridge)
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reports=reports))
    await begun.wait()
    ledger.report("bridge", "theirs")
    assert await running is Status.COMPLETED


async def test_reports_that_come_too_late_or_are_of_no_step_change_nothing(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    @step()
    async def bridge() -> str:
        return "ours"

    pipeline = pipeline_of(bridge)
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reports=reports))
    await asyncio.sleep(0)
    reports.pass_on(("unknown",))
    assert await running is Status.COMPLETED
    reports.pass_on(("bridge",))
    assert ledger.value("bridge") == "ours"


async def test_running_steps_are_shown_after_a_write_that_was_refused(
    reports: ReportedSteps, ledger: SharedLedger
) -> None:
    go = asyncio.Event()

    @step()
    async def bridge() -> str:
        return "ours"

    @step(timeout=60)
    async def slow() -> str:
        await go.wait()
        return "slow"

    pipeline = pipeline_of(bridge, slow)
    ledger.report("bridge", "theirs", tell=False)
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reports=reports))
    await wait_until(lambda: ledger.states.get("slow") is StepState.RUNNING)
    go.set()
    assert await running is Status.COMPLETED
    assert [[record.name for record in write.running] for write in ledger.writes] == [["slow"], []]


class OtherPool:
    """Has steps computed by nobody; satisfies `ports.StepRuns`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[str], bytes]] = []
        self.ended = False

    async def has_ended(
        self, lease: Lease, step: str, digest: str, needs: Sequence[str], lost: bytes
    ) -> bool:
        assert digest
        self.asked.append((step, needs, lost))
        return self.ended


@pytest.mark.parametrize("told", [True, False], ids=["announced", "found"])
async def test_a_step_of_another_pool_comes_from_there(*, told: bool) -> None:
    @step(required=True)
    async def first() -> int:
        return 3

    @step()
    async def away() -> int:
        raise StepFailed("away", retry=False)

    @step(required=True, pool="gpu")
    async def far(first: int, away: int | None) -> int:
        raise AssertionError

    @step()
    async def last(far: int) -> int:
        return far + 1

    reports = ReportedSteps()
    pipeline, ledger, pool = pipeline_of(first, away, far, last), SharedLedger(reports), OtherPool()
    elsewhere = StepsElsewhere(pool, lambda name: name == "default", again=0.001)
    going = asyncio.create_task(
        run(claim_of(pipeline), pipeline, {}, ledger, reports=reports, elsewhere=elsewhere)
    )
    await wait_until(lambda: pool.asked)
    assert [name for write in ledger.writes for name in write.ended] != []
    assert pool.asked[0][:2] == ("far", ("first", "?away"))
    ledger.report("far", 7, tell=told)
    pool.ended = not told
    assert await going is Status.COMPLETED
    assert ledger.value("last") == 8
    assert not tasks_left()


async def test_a_required_step_that_failed_in_another_pool_fails_the_run() -> None:
    @step(required=True, pool="gpu")
    async def far() -> int:
        raise AssertionError

    @step()
    async def last(far: int) -> int:
        return far

    reports = ReportedSteps()
    pipeline, ledger, pool = pipeline_of(far, last), SharedLedger(reports), OtherPool()
    elsewhere = StepsElsewhere(pool, lambda name: name == "default")
    going = asyncio.create_task(
        run(claim_of(pipeline), pipeline, {}, ledger, reports=reports, elsewhere=elsewhere)
    )
    await wait_until(lambda: pool.asked)
    ledger.reported["far"] = failed("far", "no card", FailureReason.STEP_FAILED)
    reports.pass_on(("far",))
    assert await going is Status.FAILED
    assert ledger.end is not None
    assert ledger.end.error == "far: no card"
