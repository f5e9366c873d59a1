"""Each way in which a step or its run ends without a result has a reason of its own, as data."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from headstart.testing import run_pipeline
from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import FailureReason, Job, Lease, RunKey, Status
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.pipeline.step import Step, step
from headstart_service.values.fragments import PROTO_REASON
from headstart_service.values.limits import Limits
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Ledger, claim_of, pipeline_of


@step()
async def gives_up() -> int:
    raise StepFailed("no such word", retry=False)


@step()
async def is_cut_off() -> int:
    away = FailureReason.DEPENDENCY_AWAY
    raise StepFailed("the weather service is away", retry=False, failure_reason=away)


@step(runs_on="process")
def is_cut_off_in_a_process() -> int:
    away = FailureReason.DEPENDENCY_AWAY
    raise StepFailed("the weather service is away", retry=False, failure_reason=away)


@step()
async def is_cut_off_in_a_group() -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(is_cut_off.function())
    return 1


@step(timeout=0.05)
async def takes_too_long() -> int:
    await asyncio.sleep(10)
    return 1


@step()
async def blocks_the_loop() -> int:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        pass
    return 1


@step()
async def returns_too_much() -> bytes:
    return b"x" * 2_000


@step()
async def returns_another_type() -> int:
    return "many"  # type: ignore[return-value]  # on purpose


@step(runs_on="process")
def returns_what_cannot_be_sent() -> Any:
    return lambda: None


@step()
async def raises() -> int:
    raise ValueError("a secret")


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (gives_up, FailureReason.STEP_FAILED),
        (is_cut_off, FailureReason.DEPENDENCY_AWAY),
        (is_cut_off_in_a_process, FailureReason.DEPENDENCY_AWAY),
        (is_cut_off_in_a_group, FailureReason.DEPENDENCY_AWAY),
        (takes_too_long, FailureReason.TIMED_OUT),
        (blocks_the_loop, FailureReason.BLOCKED),
        (returns_too_much, FailureReason.TOO_LARGE),
        (returns_another_type, FailureReason.WRONG_TYPE),
        (returns_what_cannot_be_sent, FailureReason.WRONG_TYPE),
        (raises, FailureReason.INTERNAL),
    ],
    ids=lambda value: value.name if isinstance(value, Step) else "",
)
def test_a_step_has_the_reason_of_its_end_and_gives_it_to_its_run(
    failing: Step, reason: FailureReason
) -> None:
    required = replace(failing, required=True, max_attempts=1)

    async def test() -> Ledger:
        pipeline, ledger = pipeline_of(required), Ledger()
        async with Executors(ExecutorRules(block_limit=0.2)) as executors:
            await executors.prepare([pipeline])
            status = await run(
                claim_of(pipeline),
                pipeline,
                {},
                ledger,
                limits=Limits(artifact=1_000),
                executors=executors,
            )
        assert status is Status.FAILED
        return ledger

    ledger = asyncio.run(test())
    assert ledger.report(failing.name).failure_reason == PROTO_REASON[reason]
    assert ledger.report(failing.name).origin == pb.STEP_ORIGIN_UNSPECIFIED
    assert ledger.end is not None
    assert ledger.end.failure_reason is reason


async def test_a_step_that_waits_too_long_for_a_thread_says_so() -> None:
    @step(runs_on="thread")
    def holds() -> int:
        time.sleep(0.5)
        return 1

    @step(runs_on="thread")
    def waits() -> int:
        return 1

    ledger = await _ran(holds, waits, rules=ExecutorRules(threads=1, wait=0.05))
    reasons = {ledger.report(name).failure_reason for name in ("holds", "waits")}
    assert reasons == {pb.FAILURE_REASON_UNSPECIFIED, pb.FAILURE_REASON_QUEUE_TIMED_OUT}


async def test_skipped_steps_say_whether_a_need_or_their_run_failed() -> None:
    @step(required=True)
    async def wants(gives_up: int) -> int:
        return gives_up

    @step()
    async def slow() -> int:
        await asyncio.sleep(30)
        return 1

    ledger = await _ran(gives_up, wants, slow)
    assert ledger.report("wants").failure_reason == pb.FAILURE_REASON_NEED_FAILED
    assert ledger.report("slow").failure_reason == pb.FAILURE_REASON_RUN_FAILED
    assert ledger.end is not None
    assert ledger.end.failure_reason is FailureReason.NEED_FAILED


async def test_a_result_that_the_run_has_no_room_for_is_too_large() -> None:
    @step(required=True)
    async def big() -> bytes:
        return b"x" * 600

    @step(required=True)
    async def bigger(big: bytes) -> bytes:
        return b"x" * 600

    ledger = await _ran(big, bigger, limits=Limits(run=1_000))
    assert ledger.report("bigger").failure_reason == pb.FAILURE_REASON_TOO_LARGE


async def test_a_step_that_is_lost_with_its_executor_has_lost_its_worker() -> None:
    class Away(Executors):
        async def call(self, *_: Any, **__: Any) -> Any:
            raise ExecutorUnavailable("Ray was lost while it ran", began=True)

    pipeline, ledger = pipeline_of(gives_up), Ledger()
    claim = claim_of(pipeline)
    fifth = replace(claim, lease=Lease(claim.lease.job, 5))
    async with Away() as executors:
        await run(fifth, pipeline, {}, ledger, executors=executors)
    assert ledger.report("gives_up").failure_reason == pb.FAILURE_REASON_WORKER_LOST


async def test_runs_that_share_a_failed_step_share_its_reason() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @step(required=True, memo=True, max_attempts=1)
    async def shared() -> int:
        began.set()
        await may_end.wait()
        raise StepFailed("away", failure_reason=FailureReason.DEPENDENCY_AWAY)

    pipeline, reuse = pipeline_of(shared), Reuse()
    ledgers = {"a": Ledger(), "b": Ledger()}
    tasks = []
    for name, ledger in ledgers.items():
        job = Job(0, "1-1", RunKey("default", name), "1-1")
        claim = replace(claim_of(pipeline), lease=Lease(job, 1))
        tasks.append(asyncio.create_task(run(claim, pipeline, {}, ledger, reuse=reuse)))
    await began.wait()
    await asyncio.sleep(0.05)
    may_end.set()
    await asyncio.gather(*tasks)
    for ledger in ledgers.values():
        assert ledger.report("shared").failure_reason == pb.FAILURE_REASON_DEPENDENCY_AWAY
        assert ledger.end is not None
        assert ledger.end.failure_reason is FailureReason.DEPENDENCY_AWAY


async def test_authors_see_reasons_and_origins_in_their_tests() -> None:
    @step()
    async def fine() -> int:
        return 1

    ran = await run_pipeline(pipeline_of(gives_up, fine), {})
    assert ran.results.steps["gives_up"].failure_reason == "step_failed"
    assert ran.results.steps["fine"].origin == "computed"
    assert ran.results.failure_reason is None


async def _ran(
    *steps: Step, rules: ExecutorRules | None = None, limits: Limits | None = None
) -> Ledger:
    pipeline, ledger = pipeline_of(*steps), Ledger()
    async with Executors(rules) as executors:
        await run(claim_of(pipeline), pipeline, {}, ledger, limits=limits, executors=executors)
    return ledger
