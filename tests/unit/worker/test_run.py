"""A run from its claim to its end: order, parallelism, what is written when."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Status, StepRecord, StepState
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import report_fragment
from headstart_service.worker.run import run
from tests.support.ledger import CLAIMED_US, Ledger, claim_of, pipeline_of, tasks_left
from tests.support.waiting import wait_until

COMPLETED, FAILED, SKIPPED = StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED


class Word(BaseModel):
    word: str = "ocean"


def kept(name: str, value: object) -> StepRecord:
    fragment = ArtifactCodec().encode(name, value) + report_fragment(name, COMPLETED)
    return StepRecord(name, COMPLETED, fragment)


async def test_values_flow_from_inputs_providers_and_steps_to_steps() -> None:
    @step()
    async def length(word: str) -> int:
        return len(word)

    @step()
    async def scaled(length: int, factor: int, step_digest: str) -> list[object]:
        return [length * factor, step_digest]

    pipeline, ledger = pipeline_of(length, scaled, inputs=Word), Ledger()
    claim = claim_of(pipeline, {"word": "river"})
    assert await run(claim, pipeline, {"factor": 3, "unused": 0}, ledger) is Status.COMPLETED
    digest = pipeline.plan({"word": "river"}, "").steps["scaled"]
    assert ledger.value("length") == 5.0
    assert ledger.value("scaled") == [15.0, digest]
    assert ledger.end is not None
    assert (ledger.end.status, ledger.end.error) == (Status.COMPLETED, "")


async def test_a_value_is_decoded_once_for_all_steps_that_take_it() -> None:
    decoded: list[str] = []

    class Counting:
        plain = ArtifactCodec()

        def encode(self, step: str, value: object) -> bytes:
            return self.plain.encode(step, value)

        def decode(self, step: str, fragment: bytes) -> object:
            decoded.append(step)
            return self.plain.decode(step, fragment)

    @step()
    async def made() -> list[int]:
        return [1, 2]

    @step()
    async def first(made: list[int]) -> int:
        return made[0]

    @step()
    async def last(made: list[int], first: int) -> int:
        return made[1] + first

    pipeline = replace(pipeline_of(made, first, last), codec=Counting())
    ledger = Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("last") == 3
    assert decoded == ["made", "first"]


async def test_independent_steps_run_at_the_same_time() -> None:
    meeting = asyncio.Barrier(2)

    @step(timeout=5)
    async def one() -> None:
        await meeting.wait()

    @step(timeout=5)
    async def two() -> None:
        await meeting.wait()

    pipeline, ledger = pipeline_of(one, two), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.states == {"one": COMPLETED, "two": COMPLETED}


async def test_a_step_starts_when_its_needs_exist_though_others_still_run() -> None:
    late_may_end = asyncio.Event()

    @step()
    async def early() -> int:
        return 1

    @step(timeout=5)
    async def late() -> int:
        await late_may_end.wait()
        return 2

    @step()
    async def after_early(early: int) -> int:
        late_may_end.set()
        return early

    @step()
    async def after_both(after_early: int, late: int) -> int:
        return after_early + late

    pipeline, ledger = pipeline_of(after_both, late, early, after_early), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("after_both") == 3.0


async def test_each_step_is_kept_as_soon_as_it_ends_and_shown_while_it_runs() -> None:
    may_end = asyncio.Event()

    @step()
    async def quick() -> int:
        return 1

    @step()
    async def slow() -> int:
        await may_end.wait()
        return 2

    pipeline, ledger = pipeline_of(quick, slow), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: len(ledger.writes) == 1)
    (first,) = ledger.writes
    assert [(r.name, r.state) for r in first.running] == [("slow", StepState.RUNNING)]
    assert first.names == ["quick"]
    assert ledger.report("slow").state == pb.STEP_STATE_RUNNING
    may_end.set()
    assert await running is Status.COMPLETED
    assert [write.names for write in ledger.writes] == [["quick"], ["slow"]]


async def test_a_step_that_takes_a_while_is_shown_though_nothing_has_ended() -> None:
    may_end = asyncio.Event()

    @step()
    async def slow() -> None:
        await may_end.wait()

    pipeline, ledger = pipeline_of(slow), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: ledger.states == {"slow": StepState.RUNNING})
    may_end.set()
    await running
    assert [write.names for write in ledger.writes] == [[], ["slow"]]


async def test_what_ends_during_a_write_goes_with_the_next_one_whole() -> None:
    gates = {name: asyncio.Event() for name in "abcd"}

    def make(name: str):
        async def wait() -> str:
            await gates[name].wait()
            return name

        wait.__name__ = name
        return step()(wait)

    pipeline, ledger = pipeline_of(*(make(name) for name in "abcd")), Ledger()
    running = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: len(ledger.writes) == 1)
    ledger.gate.clear()
    gates["a"].set()
    await wait_until(lambda: ledger.begun == 2)
    gates["b"].set()
    gates["c"].set()
    await asyncio.sleep(0.02)
    assert ledger.begun == 2, "one write at a time"
    ledger.gate.set()
    await wait_until(lambda: len(ledger.writes) == 3)
    assert [write.names for write in ledger.writes[1:]] == [["a"], ["b", "c"]]
    gates["d"].set()
    assert await running is Status.COMPLETED
    assert ledger.writes[-1].names == ["d"]
    assert all(report.attempts == 1 for report in map(ledger.report, "abcd"))


async def test_the_last_step_and_the_end_are_one_write() -> None:
    @step()
    async def only() -> int:
        return 1

    pipeline, ledger = pipeline_of(only), Ledger()
    await run(claim_of(pipeline), pipeline, {}, ledger)
    assert [(write.names, write.status) for write in ledger.writes] == [
        (["only"], Status.COMPLETED),
    ]


async def test_a_step_that_these_inputs_do_not_want_neither_runs_nor_is_reported() -> None:
    @step()
    async def always() -> int:
        return 1

    @step(when=lambda inputs: inputs.word == "haiku")
    async def sometimes() -> int:
        raise AssertionError("not wanted")

    @step()
    async def after(sometimes: int) -> int:
        raise AssertionError("not wanted")

    pipeline, ledger = pipeline_of(always, sometimes, after, inputs=Word), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert set(ledger.records) == {"always"}


async def test_steps_that_were_kept_are_used_and_not_run_again() -> None:
    @step()
    async def first() -> int:
        raise AssertionError("it was kept")

    @step()
    async def second(first: int) -> float:
        return first + 1

    pipeline, ledger = pipeline_of(first, second), Ledger()
    claim = claim_of(pipeline, ended={"first": kept("first", 41)})
    assert await run(claim, pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("second") == 42.0
    assert set(ledger.records) == {"second"}, "what is kept is not written again"


async def test_a_failure_that_was_kept_still_skips_its_dependents() -> None:
    @step()
    async def first() -> int:
        raise AssertionError("it was kept")

    @step()
    async def second(first: int) -> int:
        raise AssertionError("it has no input")

    pipeline, ledger = pipeline_of(first, second), Ledger()
    ended = {"first": StepRecord("first", FAILED, report_fragment("first", FAILED, error="no"))}
    assert await run(claim_of(pipeline, ended=ended), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.states == {"second": SKIPPED}


async def test_a_run_whose_every_step_was_kept_just_ends() -> None:
    @step(required=True)
    async def only() -> int:
        raise AssertionError("it was kept")

    pipeline, ledger = pipeline_of(only), Ledger()
    claim = claim_of(pipeline, ended={"only": kept("only", 1)})
    assert await run(claim, pipeline, {}, ledger) is Status.COMPLETED
    assert [(write.names, write.status) for write in ledger.writes] == [([], Status.COMPLETED)]


async def test_a_run_leaves_no_task_behind() -> None:
    @step()
    async def one() -> int:
        return 1

    @step()
    async def two(one: int) -> int:
        raise ValueError(one)

    pipeline = pipeline_of(one, two)
    await run(claim_of(pipeline), pipeline, {}, Ledger())
    assert tasks_left() == set()


async def test_each_step_reports_when_it_began_by_the_stores_clock() -> None:
    held = asyncio.Event()

    @step()
    async def first() -> int:
        await asyncio.sleep(0.03)
        return 1

    @step()
    async def second(first: int) -> int:
        await held.wait()
        return first

    pipeline, ledger = pipeline_of(first, second), Ledger()
    task = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger))
    await wait_until(lambda: "second" in ledger.records)
    shown = ledger.report("second")
    held.set()
    await task
    starts = [ledger.report(name).started_us - CLAIMED_US for name in ("first", "second")]
    assert 0 <= starts[0] < 10_000_000
    assert starts[1] >= starts[0] + 30_000
    assert ledger.report("second").started_us == shown.started_us
