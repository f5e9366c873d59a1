"""What a run does when steps fail, or when it is stopped."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Status, StepState
from headstart_service.domain.errors import (
    ExecutorUnavailable,
    LeaseLost,
    StepFailed,
    StoreUnavailable,
)
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import Step, step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.worker.run import run
from tests.support.ledger import Ledger, claim_of, pipeline_of, tasks_left
from tests.support.waiting import wait_until

COMPLETED, FAILED, SKIPPED = StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED
SECRET = "password=hunter2"


class Sleeper:
    """A step that never ends, and that tells how it was stopped."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.stopped = False

    def step(self, name: str = "sleeper") -> Step:
        async def sleep() -> None:
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped = True

        sleep.__name__ = name
        return step()(sleep)


@step()
async def fine() -> int:
    return 1


def longest(most: float) -> float:
    """The longest pause that a backoff allows."""
    return most


async def finished(*steps: Step, ledger: Ledger | None = None) -> tuple[Status, Ledger]:
    pipeline, ledger = pipeline_of(*steps), ledger or Ledger()
    async with asyncio.timeout(10):
        status = await run(claim_of(pipeline), pipeline, {}, ledger, jitter=longest)
    assert ledger.end is not None
    assert ledger.end.status is status
    assert tasks_left() == set()
    return status, ledger


async def test_an_optional_failure_completes_the_run_and_skips_what_needed_it() -> None:
    @step()
    async def failing() -> int:
        raise StepFailed("no key")

    @step()
    async def dependent(failing: int) -> int:
        return failing

    @step(required=True)
    async def required(fine: int) -> int:
        return fine

    @step()
    async def further(dependent: int, fine: int) -> int:
        return dependent + fine

    status, ledger = await finished(failing, dependent, further, fine, required)
    assert status is Status.COMPLETED
    assert ledger.states == {
        "failing": FAILED,
        "dependent": SKIPPED,
        "further": SKIPPED,
        "fine": COMPLETED,
        "required": COMPLETED,
    }
    assert ledger.report("failing").error == "no key"
    assert ledger.report("dependent").error == "failing has no result"
    assert ledger.report("dependent").attempts == 0
    assert ledger.report("further").error == "dependent has no result"


async def test_a_required_failure_ends_the_run_at_once_and_reports_every_step() -> None:
    sleeper = Sleeper()

    @step(required=True)
    async def failing(fine: int) -> int:
        await sleeper.began.wait()
        raise StepFailed("no such word")

    @step()
    async def dependent(failing: int) -> int:
        return failing

    @step()
    async def after_sleeper(sleeper: None) -> int:
        return 1

    status, ledger = await finished(fine, failing, dependent, sleeper.step(), after_sleeper)
    assert status is Status.FAILED
    assert sleeper.stopped
    assert ledger.end is not None
    assert ledger.end.error == "failing: no such word"
    assert ledger.states == {
        "fine": COMPLETED,
        "failing": FAILED,
        "dependent": SKIPPED,
        "sleeper": SKIPPED,
        "after_sleeper": SKIPPED,
    }
    assert ledger.report("sleeper").state == pb.STEP_STATE_SKIPPED
    assert ledger.report("sleeper").error == "a required step failed"


async def test_a_required_step_that_cannot_run_fails_the_run() -> None:
    @step()
    async def failing() -> int:
        raise StepFailed("no")

    @step(required=True)
    async def required(failing: int) -> int:
        return failing

    status, ledger = await finished(failing, required)
    assert ledger.states["required"] is SKIPPED
    assert status is Status.FAILED
    assert ledger.end is not None
    assert ledger.end.error == "required: failing has no result"


async def test_two_required_failures_end_the_run_once_with_the_first_reason() -> None:
    ledger = Ledger()
    writer_may_end, fail = asyncio.Event(), asyncio.Event()

    @step()
    async def writer() -> int:
        await writer_may_end.wait()
        return 1

    @step(required=True)
    async def first() -> int:
        await fail.wait()
        raise StepFailed("one")

    @step(required=True)
    async def second() -> int:
        await fail.wait()
        raise StepFailed("two")

    pipeline = pipeline_of(writer, first, second)
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: len(ledger.writes) == 1)
    ledger.gate.clear()
    writer_may_end.set()
    await wait_until(lambda: ledger.begun == 2)
    fail.set()
    await asyncio.sleep(0.02)  # both fail, and wait for the write that is under way
    ledger.gate.set()
    assert await running is Status.FAILED
    assert [write.names for write in ledger.writes] == [[], ["writer"], ["first", "second"]]
    assert ledger.end is not None
    assert ledger.end.error == "first: one"
    assert ledger.states == {"writer": COMPLETED, "first": FAILED, "second": FAILED}


async def test_a_step_is_tried_again_with_doubling_pauses_and_its_tries_are_counted() -> None:
    times: list[float] = []

    @step(max_attempts=3, backoff=0.05)
    async def flaky() -> str:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            raise StepFailed("not yet")
        return "done"

    status, ledger = await finished(flaky)
    assert status is Status.COMPLETED
    assert ledger.value("flaky") == "done"
    assert ledger.report("flaky").attempts == 3
    assert ledger.report("flaky").elapsed.ToTimedelta().total_seconds() >= 0.15
    first, second = times[1] - times[0], times[2] - times[1]
    assert first >= 0.045
    assert second >= 0.09


async def test_a_step_fails_with_its_last_reason_when_its_tries_are_used_up() -> None:
    tries = 0

    @step(max_attempts=2, backoff=0)
    async def failing() -> str:
        nonlocal tries
        tries += 1
        raise StepFailed(f"try {tries}")

    _, ledger = await finished(failing)
    assert ledger.report("failing").error == "try 2"
    assert ledger.report("failing").attempts == 2


async def test_a_step_that_is_lost_with_its_place_is_charged_from_the_fifth_claim_on() -> None:
    @step(max_attempts=2, backoff=0)
    async def heavy() -> str:
        raise ExecutorUnavailable("Ray was lost while it ran", began=True)

    pipeline = pipeline_of(heavy)
    claim = claim_of(pipeline)
    for attempt, charged in ((4, False), (5, True)):
        ledger = Ledger()
        again = replace(claim, lease=replace(claim.lease, attempt=attempt))
        if charged:
            await run(again, pipeline, {}, ledger)
            assert ledger.report("heavy").error == "Ray was lost while it ran"
            assert ledger.report("heavy").attempts == 2
        else:
            with pytest.raises(ExecutorUnavailable):
                await run(again, pipeline, {}, ledger)
            assert ledger.end is None


async def test_a_failure_that_forbids_it_is_not_tried_again() -> None:
    @step(max_attempts=5)
    async def failing() -> str:
        raise StepFailed("never", retry=False)

    _, ledger = await finished(failing)
    assert (ledger.report("failing").error, ledger.report("failing").attempts) == ("never", 1)


class Panic(BaseException):
    """What PyO3 makes of a Rust library's panic."""


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Panic()])
@pytest.mark.parametrize("runs_on", ["loop", "thread", "task"])
async def test_what_is_no_exception_fails_its_step_alone(
    error: BaseException, runs_on: str
) -> None:
    def bad() -> int:
        raise error

    async def bad_too() -> int:
        # A loop that a task has stopped with these two goes on in a worker alone.
        if runs_on == "task" and isinstance(error, Panic):
            return await asyncio.create_task(bad_task())
        return bad()

    async def bad_task() -> int:
        return bad()

    made = step(runs_on="thread")(bad) if runs_on == "thread" else step()(bad_too)
    status, ledger = await finished(made, fine)
    assert status is Status.COMPLETED
    assert ledger.states == {made.name: FAILED, "fine": COMPLETED}
    assert ledger.report(made.name).error.startswith("internal error")


async def test_a_codec_that_raises_what_is_no_exception_fails_its_step_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def checked(self: object, name: str, value: object) -> object:
        if value == 7:
            raise Panic
        return value

    monkeypatch.setattr(ArtifactCodec, "checked", checked)

    @step()
    async def odd() -> int:
        return 7

    status, ledger = await finished(odd, fine)
    assert status is Status.COMPLETED
    assert ledger.states == {"odd": FAILED, "fine": COMPLETED}


async def test_a_step_that_makes_a_failure_of_its_cancellation_is_not_tried_again() -> None:
    ledger, tries = Ledger(), []
    began = asyncio.Event()

    @step(max_attempts=5, backoff=0)
    async def stubborn() -> None:
        tries.append(1)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise StepFailed("no")  # whatever stops it

    pipeline = pipeline_of(stubborn)
    task = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await began.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    assert task.cancelled()
    assert (tries, ledger.end) == ([1], None)


async def test_a_reason_is_cut_and_made_valid_text() -> None:
    @step(required=True)
    async def verbose() -> None:
        raise StepFailed("\ud800" + "é" * 5_000_000)

    _, ledger = await finished(verbose)
    assert ledger.end is not None
    said = "?" + "é" * 1_998 + "…"
    assert ledger.report("verbose").error == said
    assert ledger.end.error == f"verbose: {said}"


async def test_a_failure_inside_groups_keeps_its_reason() -> None:
    async def fail(reason: str, *, retry: bool) -> None:
        raise StepFailed(reason, retry=retry)

    @step(max_attempts=3, backoff=0)
    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("no such word", retry=False))

    @step(max_attempts=2, backoff=0)
    async def nested() -> None:
        raise ExceptionGroup(
            "",
            [ExceptionGroup("", [StepFailed("first"), StepFailed("second")]), ValueError(SECRET)],
        )

    _, ledger = await finished(grouped, nested)
    assert (ledger.report("grouped").error, ledger.report("grouped").attempts) == (
        "no such word",
        1,
    )
    assert (ledger.report("nested").error, ledger.report("nested").attempts) == (
        "first (and 2 more)",
        2,
    )


async def test_a_step_over_its_time_is_stopped_with_that_error() -> None:
    @step(timeout=0.02)
    async def slow() -> None:
        await asyncio.Event().wait()

    _, ledger = await finished(slow)
    assert ledger.report("slow").error == "took longer than 0.02 s"


async def test_a_time_out_inside_a_step_is_not_told_as_the_steps_own() -> None:
    @step(timeout=30)
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    _, ledger = await finished(impatient)
    assert re.fullmatch("internal error [0-9a-f]{12}", ledger.report("impatient").error)


async def test_an_unexpected_error_shows_callers_an_id_that_the_log_explains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @step(required=True)
    async def broken() -> None:
        raise RuntimeError(SECRET)

    _, ledger = await finished(broken)
    error = ledger.report("broken").error
    assert re.fullmatch("internal error [0-9a-f]{12}", error)
    assert all(SECRET.encode() not in r.fragment for r in ledger.records.values())
    assert ledger.end is not None
    assert ledger.end.error == f"broken: {error}"
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error in record.getMessage()
    assert record.exc_info
    assert str(record.exc_info[1]) == SECRET


async def test_a_value_that_cannot_be_encoded_fails_its_step_alone() -> None:
    @step()
    async def odd() -> object:
        return object()

    status, ledger = await finished(odd, fine)
    assert status is Status.COMPLETED
    assert ledger.states == {"odd": FAILED, "fine": COMPLETED}


async def test_a_cancellation_that_comes_out_of_a_step_by_itself_is_a_failure() -> None:
    @step(required=True)
    async def orphaned() -> None:
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()
        await shared

    status, ledger = await finished(orphaned)
    assert status is Status.FAILED
    assert ledger.report("orphaned").error.startswith("internal error")


def sleeping_run(ledger: Ledger) -> tuple[Sleeper, Pipeline, asyncio.Task[Status]]:
    sleeper = Sleeper()
    pipeline = pipeline_of(sleeper.step(), fine)
    return (
        sleeper,
        pipeline,
        asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger), name="run"),
    )


@pytest.mark.parametrize("error", [LeaseLost("default/run"), StoreUnavailable("away")])
async def test_a_write_that_fails_stops_every_step_and_is_reported(error: Exception) -> None:
    ledger = Ledger()
    sleeper = Sleeper()

    @step()
    async def last_straw() -> int:
        await sleeper.began.wait()
        ledger.failure = error
        return 1

    pipeline = pipeline_of(sleeper.step(), last_straw)
    with pytest.raises(type(error)) as caught:
        await run(claim_of(pipeline), pipeline, {}, ledger)
    assert caught.value is error
    assert sleeper.stopped
    assert tasks_left() == set()
    assert ledger.end is None


async def test_a_lease_that_was_lost_already_stops_what_has_begun() -> None:
    ledger = Ledger()
    ledger.failure = LeaseLost("default/run")
    sleeper, _, running = sleeping_run(ledger)
    with pytest.raises(LeaseLost):
        await running
    assert sleeper.stopped
    assert tasks_left() == set()


async def test_cancelling_a_run_stops_its_steps_and_writes_nothing_more() -> None:
    ledger = Ledger()
    sleeper, _, running = sleeping_run(ledger)
    await sleeper.began.wait()
    await wait_until(lambda: len(ledger.writes) == 1)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert sleeper.stopped
    assert ledger.end is None
    assert tasks_left() == set()


async def test_cancelling_a_run_during_a_write_leaves_no_task_behind() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    sleeper, _, running = sleeping_run(ledger)
    await wait_until(lambda: ledger.begun == 1)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert sleeper.stopped
    assert tasks_left() == set()


async def test_cancelling_a_run_between_two_tries_ends_it() -> None:
    tried = asyncio.Event()

    @step(max_attempts=2, backoff=600)
    async def failing() -> None:
        tried.set()
        raise StepFailed("no")

    pipeline, ledger = pipeline_of(failing), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await tried.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert tasks_left() == set()
