"""What a step's options change: which failures are retried and when, what is remembered, how large."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.testing import run_pipeline
from headstart_service.domain import FailureReason, StepState
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import Step, step
from headstart_service.telemetry.logging.work_log import WorkLog
from headstart_service.worker.cost_meter import spend
from headstart_service.worker.executors.executors import Executors
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Dictionary, Ledger, claim_for, claim_of, pipeline_of
from tests.support.virtual_time import loop_time, run_virtually


class Away(ConnectionError):
    """A kind of an author's own."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("no number"),
    "away": lambda: Away("refused"),
    "group": lambda: ExceptionGroup("two", [Away("one"), TimeoutError("two")]),
    "mixed": lambda: ExceptionGroup("two", [Away("one"), KeyError("two")]),
    "timeout": lambda: TimeoutError("of the step's own call"),
    "failed": lambda: StepFailed("not now"),
    "later": lambda: StepFailed("not now", retry_after=0.01),
}


class Named(BaseModel):
    error: str = "value"


def _raise(error: str) -> int:
    failure = ERRORS[error]()
    raise failure


@step(max_attempts=3, backoff=0)
async def on_loop(error: str) -> int:
    return _raise(error)


@step(max_attempts=3, backoff=0, runs_on="thread")
def in_thread(error: str) -> int:
    return _raise(error)


@step(max_attempts=3, backoff=0, runs_on="process")
def in_process(error: str) -> int:
    return _raise(error)


EVERYWHERE = (on_loop, in_thread, in_process)


async def tries(failing: Step, error: str, executors: Executors | None = None) -> int:
    ledger, pipeline = Ledger(), pipeline_of(failing, inputs=Named)
    await run(claim_of(pipeline, {"error": error}), pipeline, {}, ledger, executors=executors)
    attempts: int = ledger.report(failing.name).attempts
    return attempts


async def test_mistakes_are_not_tried_again_wherever_a_step_runs() -> None:
    async with Executors() as executors:
        for each in EVERYWHERE:
            found = {error: await tries(each, error, executors) for error in ERRORS}
            assert found == {
                "value": 1,
                "away": 3,
                "group": 3,
                "mixed": 1,
                "timeout": 3,
                "failed": 3,
                "later": 3,
            }, each.name


async def test_with_retry_on_only_these_kinds_are_tried_again() -> None:
    async with Executors() as executors:
        for each in EVERYWHERE:
            chosen = replace(each, retry_on=(ConnectionError, ValueError))
            found = {error: await tries(chosen, error, executors) for error in ERRORS}
            assert found == {
                "value": 3,
                "away": 3,
                "group": 1,
                "mixed": 1,
                "timeout": 1,
                "failed": 3,  # StepFailed decides for itself
                "later": 3,
            }, each.name


@pytest.mark.parametrize(
    ("retry_on", "attempts"), [(None, 2), ((TimeoutError,), 2), ((OSError,), 2), ((Away,), 1)]
)
def test_a_timeout_is_a_timeout_error(retry_on: Any, attempts: int) -> None:
    @step(max_attempts=2, timeout=0.5, backoff=0, retry_on=retry_on)
    async def slow() -> None:
        await asyncio.sleep(10)

    async def tried() -> Ledger:
        ledger, pipeline = Ledger(), pipeline_of(slow)
        await run(claim_of(pipeline), pipeline, {}, ledger)
        return ledger

    report = run_virtually(tried()).report("slow")
    assert (report.attempts, report.error) == (attempts, "took longer than 0.5 s")


def pauses(jitter: Callable[[float], float], error: BaseException, **options: Any) -> list[float]:
    """The seconds between the tries of a step that raises this."""
    times: list[float] = []

    @step(**options)
    async def failing() -> None:
        times.append(loop_time())
        raise error

    async def tried() -> None:
        pipeline = pipeline_of(failing)
        await run(claim_of(pipeline), pipeline, {}, Ledger(), jitter=jitter)

    run_virtually(tried())
    return [round(later - sooner, 6) for sooner, later in pairwise(times)]


def test_a_backoff_is_jittered_up_to_its_most() -> None:
    most: list[float] = []

    def half(seconds: float) -> float:
        most.append(seconds)
        return seconds / 2

    found = pauses(half, Away("no"), max_attempts=4, backoff=0.2)
    assert most == [0.2, 0.4, 0.8]
    assert found == [0.1, 0.2, 0.4]


def test_a_step_says_when_to_try_again_within_its_budget() -> None:
    def never(_: float) -> float:
        raise AssertionError("a step's own pause is not jittered")

    later = StepFailed("busy", retry_after=3.0)
    assert pauses(never, later, max_attempts=3, timeout=10) == [3.0, 3.0]
    # Three tries of 2 s are 6 s: the third would begin when they are over.
    assert pauses(never, later, max_attempts=3, timeout=2) == [3.0]
    assert pauses(never, StepFailed("x", retry_after=7.0), max_attempts=3, timeout=2) == []
    assert pauses(never, StepFailed("x", retry_after=0), max_attempts=2) == [0.0]
    group = ExceptionGroup("", [StepFailed("x", retry_after=1.0), StepFailed("y", retry_after=2.0)])
    assert pauses(never, group, max_attempts=2) == [2.0]
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="retry_after must be 0 seconds or more"):
            StepFailed("x", retry_after=wrong)


async def test_a_memo_lives_as_long_as_its_step_says() -> None:
    @step(memo=True, ttl=5.0)
    async def short(error: str) -> str:
        return error

    @step(memo=True)
    async def long(error: str) -> str:
        return error

    memos, pipeline = Dictionary(), pipeline_of(short, long, inputs=Named)
    await run(claim_of(pipeline), pipeline, {}, Ledger(), reuse=Reuse(memos))
    assert sorted(memos.ttls.values(), key=str) == [5.0, None]


async def test_a_remembered_failure_is_not_computed_again(caplog) -> None:
    ran = 0

    @step(memo=True, memo_failures=30.0, max_attempts=1)
    async def failing(error: str) -> str:
        nonlocal ran
        ran += 1
        spend(llm_tokens=1)
        if error == "value":
            raise StepFailed("no such page", failure_reason=FailureReason.DEPENDENCY_AWAY)
        return error

    memos, pipeline = Dictionary(), pipeline_of(failing, inputs=Named)

    async def found(key: str, *, fresh: bool = False, error: str = "value") -> Ledger:
        ledger = Ledger()
        claim = claim_for(pipeline, key, fresh=fresh, error=error)
        await run(claim, pipeline, {}, ledger, WorkLog("w"), reuse=Reuse(memos))
        return ledger

    first, second = await found("one"), await found("two")
    logged = [line for line in caplog.messages if "failing failed" in line]
    assert [line.partition(" failed ")[2] for line in logged] == [
        "after 1 try: no such page",
        "without a try, by a memo: no such page",
    ]
    assert ran == 1
    assert list(memos.ttls.values()) == [30.0]
    for ledger, attempts in ((first, 1), (second, 0)):
        assert ledger.states == {"failing": StepState.FAILED}
        report = ledger.report("failing")
        assert (report.error, report.attempts) == ("no such page", attempts)
    assert first.report("failing").failure_reason == second.report("failing").failure_reason
    await found("one", fresh=True)
    assert ran == 2, "a restart reads no memo"
    await found("one", error="other")
    assert ran == 3
    # What another program has written there is no failure.
    for name in memos.kept:
        memos.kept[name] = json.dumps({"error": "x", "reason": "unknown"}).encode()
    await found("three")
    assert ran == 4


async def test_a_failure_of_this_worker_alone_is_not_remembered() -> None:
    @step(memo=True, memo_failures=30.0)
    async def failing() -> str:
        raise StepFailed("full", failure_reason=FailureReason.QUEUE_TIMED_OUT)

    memos, pipeline = Dictionary(), pipeline_of(failing)
    await run(claim_of(pipeline), pipeline, {}, Ledger(), reuse=Reuse(memos))
    assert memos.kept == {}


async def test_a_steps_own_limit_fails_it_below_the_workers() -> None:
    @step(max_bytes=1000)
    async def large() -> str:
        return "x" * 2000

    @step(max_bytes=4000)
    async def small() -> str:
        return "x" * 2000

    result = await run_pipeline(pipeline_of(large, small), {})
    assert result.steps["large"].error.startswith("returned 2,0")
    assert result.steps["large"].error.endswith("its max_bytes is 1,000")
    assert result.steps["large"].failure_reason == "too_large"
    assert result.values["small"] == "x" * 2000


async def test_run_pipeline_waits_for_nothing_to_settle() -> None:
    @step(settle=60)
    async def patient() -> int:
        return 1

    async with asyncio.timeout(10):
        assert (await run_pipeline(pipeline_of(patient), {})).values["patient"] == 1
