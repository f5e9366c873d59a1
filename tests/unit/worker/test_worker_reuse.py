"""What a run need not compute: memos, work that another run does now, steps of a replaced run."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from contextlib import ExitStack
from typing import Any

from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Claim, RunKey, Status, StepState
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import merged, report_fragment, result_of
from headstart_service.values.limits import Limits
from headstart_service.worker.cost_meter import spend
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from headstart_service.worker.shared_steps import HOLD, SharedSteps
from headstart_service.worker.worker_observer import StepOutcome, WorkObservers
from tests.support.ledger import (
    Dictionary,
    Ledger,
    claim_for,
    claim_of,
    pipeline_of,
    tasks_left,
)
from tests.support.virtual_time import run_virtually
from tests.support.waiting import wait_until


class Pair(BaseModel):
    anchor: str = "a"
    target: str = "t"


class Counting:
    """Three memoised steps, two of the anchor alone, that count how often they ran.

    `slow` ends when `may_end` is set.
    """

    def __init__(self, version: str = "") -> None:
        self.ran: Counter[str] = Counter()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.failure = ""
        self.memos = Dictionary()
        self.reuse = Reuse(self.memos)

        @step(memo=True, version=version)
        async def length(anchor: str) -> int:
            self.ran["length"] += 1
            return len(anchor)

        @step(memo=True, timeout=20)
        async def slow(anchor: str) -> str:
            self.ran["slow"] += 1
            await self.may_end.wait()
            if self.failure:
                raise StepFailed(self.failure)
            return anchor.upper()

        @step(memo=True)
        async def joined(length: int, target: str) -> str:
            self.ran["joined"] += 1
            return f"{target}{length:g}"

        self.pipeline = pipeline_of(length, slow, joined, inputs=Pair)

    async def run(self, key: str = "one", *, fresh: bool = False, **inputs: Any) -> Ledger:
        ledger = Ledger()
        claim = claim_for(self.pipeline, key, fresh=fresh, **inputs)
        await run(claim, self.pipeline, {}, ledger, reuse=self.reuse)
        return ledger


def origins(ledger: Ledger) -> dict[str, int]:
    return {name: ledger.report(name).origin for name in ledger.records}


async def test_memoised_steps_are_reused_in_runs_of_other_keys_and_marked() -> None:
    work = Counting()
    first = await work.run("one", anchor="ocean", target="x")
    second = await work.run("two", anchor="ocean", target="y")
    assert work.ran == {"length": 1, "slow": 1, "joined": 2}
    assert set(origins(first).values()) == {pb.STEP_ORIGIN_UNSPECIFIED}
    memoised = pb.STEP_ORIGIN_MEMOISED
    assert origins(second) == {"length": memoised, "slow": memoised, "joined": 0}
    assert second.value("slow") == "OCEAN"
    assert second.value("joined") == "y5"
    assert (second.report("slow").attempts, second.report("joined").attempts) == (0, 1)
    assert second.report("slow").HasField("elapsed")
    assert second.end is not None
    assert second.end.status is Status.COMPLETED


async def test_a_step_that_is_not_memoised_is_computed_and_nothing_of_it_is_kept() -> None:
    ran = 0

    @step()
    async def plain(anchor: str) -> str:
        nonlocal ran
        ran += 1
        return anchor

    memos = Dictionary()
    pipeline = pipeline_of(plain, inputs=Pair)
    for key in ("one", "two"):
        await run(claim_for(pipeline, key), pipeline, {}, Ledger(), reuse=Reuse(memos))
    assert (ran, memos.kept, memos.looks) == (2, {}, 0)


async def test_a_namespace_gets_nothing_of_anothers() -> None:
    work = Counting()
    await work.run("one")
    claim = claim_for(work.pipeline, "one", namespace="other")
    await run(claim, work.pipeline, {}, Ledger(), reuse=work.reuse)
    assert work.ran == {"length": 2, "slow": 2, "joined": 2}


async def test_a_namespace_does_not_share_work_under_way_with_another() -> None:
    work = Counting()
    work.may_end.clear()
    claims = [claim_for(work.pipeline, "one", namespace=name) for name in ("mine", "theirs")]
    async with asyncio.TaskGroup() as group:
        for claim in claims:
            group.create_task(run(claim, work.pipeline, {}, Ledger(), reuse=work.reuse))
        await wait_until(lambda: work.ran["slow"] == 2)
        work.may_end.set()


async def test_a_restart_computes_anew_and_refreshes_the_memos() -> None:
    work = Counting()
    await work.run("one")
    before, looks = dict(work.memos.kept), work.memos.looks
    for key in before:
        work.memos.kept[key] = b"stale"
    again = await work.run("one", fresh=True)
    assert work.ran == {"length": 2, "slow": 2, "joined": 2}
    assert set(origins(again).values()) == {0}
    assert work.memos.kept == before
    assert work.memos.looks == looks, "what is remembered is not even looked at"


async def test_a_restart_does_not_join_work_that_began_before_it() -> None:
    work = Counting()
    work.may_end.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(work.run("one"))
        await wait_until(lambda: work.ran["slow"] == 1)
        group.create_task(work.run("two", fresh=True))
        await wait_until(lambda: work.ran["slow"] == 2)
        # Who comes later shares the fresh work.
        later = group.create_task(work.run("three"))
        await wait_until(lambda: work.memos.looks > 3)
        work.may_end.set()
    assert work.ran["slow"] == 2
    assert origins(later.result())["slow"] == pb.STEP_ORIGIN_MEMOISED


async def test_a_version_invalidates_its_step_and_what_needs_it_and_no_other() -> None:
    old, new = Counting(), Counting(version="2")
    await old.run("one")
    new.reuse = old.reuse
    await new.run("two")
    # What `length` gives has not changed, so what is made of it is the same still.
    assert new.ran == {"length": 1}


async def test_runs_at_the_same_time_share_one_computation() -> None:
    work = Counting()
    work.may_end.clear()
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(work.run(f"k{i}")) for i in range(5)]
        await wait_until(lambda: work.ran["slow"] == 1)
        await asyncio.sleep(0.02)  # as long as others would need to begin as well
        work.may_end.set()
    assert work.ran == {"length": 1, "slow": 1, "joined": 1}
    assert [origins(each.result())["slow"] for each in runs] == [0, 2, 2, 2, 2]


async def test_a_cancelled_run_does_not_cancel_what_another_waits_for() -> None:
    work = Counting()
    work.may_end.clear()
    first = asyncio.create_task(work.run("one"))
    await wait_until(lambda: work.ran["slow"] == 1)
    second = asyncio.create_task(work.run("two"))
    await wait_until(lambda: len(work.reuse.shared_steps.waiting) == 1 and waiting(work) == 2)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    work.may_end.set()
    assert (await second).value("slow") == "A"
    assert work.ran["slow"] == 1
    assert not tasks_left()


def waiting(work: Counting) -> int:
    return sum(work.reuse.shared_steps.waiting.values())


async def test_the_last_run_to_be_cancelled_takes_the_work_with_it() -> None:
    work = Counting()
    work.may_end.clear()
    runs = [asyncio.create_task(work.run(key)) for key in ("one", "two")]
    await wait_until(lambda: waiting(work) == 2)
    for each in runs:
        each.cancel()
        await asyncio.wait({each})
    assert not tasks_left()
    assert not work.reuse.shared_steps.waiting


async def test_a_failure_is_shared_by_who_waits_and_not_remembered() -> None:
    work = Counting()
    work.may_end.clear()
    work.failure = "the model is away"
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(work.run(key)) for key in ("one", "two")]
        await wait_until(lambda: waiting(work) == 2)
        work.may_end.set()
    for each in runs:
        report = each.result().report("slow")
        assert (report.state, report.error) == (pb.STEP_STATE_FAILED, "the model is away")
        assert report.origin == pb.STEP_ORIGIN_UNSPECIFIED
    assert len(work.memos.kept) == 2, "of the two other steps"
    work.failure = ""
    assert (await work.run("three")).value("slow") == "A"
    assert work.ran["slow"] == 2


async def test_what_this_worker_cannot_read_is_computed() -> None:
    work = Counting()
    await work.run("one")
    for key in work.memos.kept:
        work.memos.kept[key] = b"\xff\xff\xff"
    again = await work.run("two")
    assert work.ran == {"length": 2, "slow": 2, "joined": 2}
    assert again.value("joined") == "t1"


async def test_what_is_made_of_an_impure_step_fits_what_that_gave_this_run() -> None:
    thrown = iter((1, 2, 1))

    @step()
    async def dice() -> int:
        return next(thrown)

    @step(memo=True)
    async def doubled(dice: int) -> int:
        return int(dice) * 2

    pipeline = pipeline_of(dice, doubled)
    reuse = Reuse(Dictionary())
    pairs = []
    for key in ("one", "two", "three"):
        ledger = Ledger()
        await run(claim_for(pipeline, key), pipeline, {}, ledger, reuse=reuse)
        report = ledger.report("doubled")
        pairs.append((ledger.value("dice"), ledger.value("doubled"), report.origin))
    assert pairs == [(1, 2, 0), (2, 4, 0), (1, 2, pb.STEP_ORIGIN_MEMOISED)]


async def test_a_step_that_takes_its_digest_is_reused_for_that_digest_alone() -> None:
    @step(memo=True)
    async def upper(anchor: str) -> str:
        return anchor.upper()

    @step(memo=True)
    async def seeded(upper: str, step_digest: str) -> str:
        return upper + step_digest

    pipeline = pipeline_of(upper, seeded, inputs=Pair)
    reuse = Reuse(Dictionary())
    for key, anchor in (("one", "a"), ("two", "A")):
        ledger = Ledger()
        await run(claim_for(pipeline, key, anchor=anchor), pipeline, {}, ledger, reuse=reuse)
        digest = pipeline.plan({"anchor": anchor}, "").steps["seeded"]
        assert ledger.value("seeded") == "A" + digest


class Told(WorkObservers):
    """Keeps how steps ended."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, StepOutcome] = {}

    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Any:
        self.outcomes[name] = outcome
        return super().step(claim, name, outcome)


async def test_tries_are_reported_once_whoever_waited_for_them() -> None:
    may_end = asyncio.Event()
    tries = 0

    @step(memo=True, max_attempts=2, backoff=0, timeout=20)
    async def shaky() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StepFailed("no")
        await may_end.wait()
        return 1

    pipeline = pipeline_of(shaky)
    reuse = Reuse(Dictionary())
    told = [Told(), Told(), Told()]

    async def one(key: str, observer: Told) -> None:
        await run(claim_for(pipeline, key), pipeline, {}, Ledger(), observer, reuse=reuse)

    async with asyncio.TaskGroup() as group:
        for number, observer in enumerate(told[:2]):
            group.create_task(one(f"k{number}", observer))
        await wait_until(lambda: tries == 2)
        may_end.set()
    await one("later", told[2])
    outcomes = [each.outcomes["shaky"] for each in told]
    assert [o.state for o in outcomes] == ["completed"] * 3
    assert [o.attempts for o in outcomes] == [2, 1, 0]
    assert [len(o.tried) for o in outcomes] == [1, 0, 0]
    assert [o.memoised for o in outcomes] == [False, True, True]


async def test_the_next_revision_takes_over_the_steps_it_needs_and_ends_the_others() -> None:
    ended = []
    may_end = asyncio.Event()
    ran: Counter[str] = Counter()

    async def work(name: str) -> str:
        ran[name] += 1
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return name

    @step(timeout=20)
    async def of_anchor(anchor: str) -> str:
        return await work(f"anchor {anchor}")

    @step(timeout=20)
    async def of_target(target: str) -> str:
        return await work(f"target {target}")

    pipeline = pipeline_of(of_anchor, of_target, inputs=Pair)
    reuse = Reuse()
    reuse.shared_steps.hold_for = 600.0  # it is the next revision that ends them, not time
    key = RunKey("default", "game")

    def begin(ledger: Ledger, **inputs: str) -> asyncio.Task[Status]:
        claim = claim_for(pipeline, "game", **inputs)
        return asyncio.create_task(run(claim, pipeline, {}, ledger, reuse=reuse))

    old = begin(Ledger(), anchor="o", target="t")
    await wait_until(lambda: ran.total() == 2)
    reuse.shared_steps.hold(key)
    old.cancel()
    await asyncio.wait({old})
    assert old.cancelled()
    assert not ended
    ledger = Ledger()
    new = begin(ledger, anchor="oc", target="t")
    await wait_until(lambda: ended == ["anchor o"])
    may_end.set()
    assert await new is Status.COMPLETED
    assert ran == {"anchor o": 1, "target t": 1, "anchor oc": 1}
    assert ledger.value("of_target") == "target t"
    assert ledger.states["of_target"] is StepState.COMPLETED
    # It began before its run: whoever reads it is told that it was kept.
    assert ledger.report("of_target").attempts == 1
    await reuse.shared_steps.aclose()


async def test_work_begun_with_what_an_impure_step_gave_before_is_not_taken_over() -> None:
    thrown = iter((1, 2))
    may_end = asyncio.Event()
    ran: list[float] = []

    @step()
    async def dice() -> int:
        return next(thrown)

    @step(timeout=20)
    async def doubled(dice: int) -> float:
        ran.append(dice)
        await may_end.wait()
        return dice * 2

    pipeline = pipeline_of(dice, doubled)
    reuse = Reuse()
    old = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, Ledger(), reuse=reuse))
    await wait_until(lambda: ran == [1])
    reuse.shared_steps.hold(RunKey("default", "run"))
    old.cancel()
    await asyncio.wait({old})
    # Its die had not been written when it was replaced, so the next revision throws again.
    ledger = Ledger()
    new = asyncio.create_task(run(claim_of(pipeline), pipeline, {}, ledger, reuse=reuse))
    await wait_until(lambda: ran == [1, 2])
    may_end.set()
    assert await new is Status.COMPLETED
    assert (ledger.value("dice"), ledger.value("doubled")) == (2, 4)
    await reuse.shared_steps.aclose()


async def test_held_steps_for_which_nobody_comes_end_after_a_while() -> None:
    work = Counting()
    work.reuse.shared_steps.hold_for = 0.05
    work.may_end.clear()
    running = asyncio.create_task(work.run("one"))
    await wait_until(lambda: waiting(work) == 1)
    work.reuse.shared_steps.hold(RunKey("default", "one"))
    running.cancel()
    await asyncio.wait({running})
    assert tasks_left()
    await wait_until(lambda: not tasks_left())
    assert not work.reuse.shared_steps.waiting


def test_a_second_edit_within_the_time_that_steps_are_held_holds_them_anew() -> None:
    key = RunKey("default", "one")

    async def edited() -> None:
        shared_steps, ended = SharedSteps(), asyncio.Event()
        began = asyncio.get_running_loop().time()

        async def work(_: StepOutcome) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return "never"

        async def revision() -> None:
            with shared_steps.expecting(key, ["digest"]):
                await shared_steps.share("step", key, "digest", StepOutcome(), work)

        for at in (0.0, 0.6 * HOLD):
            await asyncio.sleep(began + at - asyncio.get_running_loop().time())
            running = asyncio.create_task(revision())
            await asyncio.sleep(0.01)
            shared_steps.hold(key)
            running.cancel()
            await asyncio.wait({running})
            assert shared_steps.waiting == {"step": 0}
        await asyncio.sleep(0.9 * HOLD)
        assert not ended.is_set(), "held since the second edit"
        await asyncio.sleep(0.2 * HOLD)
        assert ended.is_set()
        assert not shared_steps.waiting
        await shared_steps.aclose()

    run_virtually(edited())


def test_only_steps_that_the_present_revision_expects_are_held() -> None:
    key = RunKey("default", "one")

    async def work(_: StepOutcome) -> None:
        await asyncio.Event().wait()

    async def replaced() -> None:
        shared_steps = SharedSteps()

        async def step_of(digest: str) -> asyncio.Task[None]:
            task = asyncio.create_task(shared_steps.share(digest, key, digest, StepOutcome(), work))
            await asyncio.sleep(0)
            return task

        def left() -> set[Any]:
            return set(shared_steps.waiting)

        with ExitStack() as old, ExitStack() as new:
            old.enter_context(shared_steps.expecting(key, ["a", "b"]))
            tasks = [await step_of("a"), await step_of("b")]
            shared_steps.hold(key)
            # The next revision has begun before the old one has left.
            new.enter_context(shared_steps.expecting(key, ["b", "c"]))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert left() == {"b"}
            old.close()
            task = await step_of("c")
            task.cancel()
            await asyncio.wait({task})
            assert left() == {"b", "c"}, "what it expects is its own, whoever leaves"
        await shared_steps.aclose()

    run_virtually(replaced())


async def test_costs_of_shared_work_are_the_first_waiters_and_its_time_the_owners() -> None:
    may_end = asyncio.Event()

    @step(memo=True, timeout=20)
    async def costly() -> int:
        spend(llm_tokens=7)
        await may_end.wait()
        return 1

    pipeline = pipeline_of(costly)
    reuse = Reuse(Dictionary())
    ledger = Ledger()
    owner = asyncio.create_task(
        run(claim_for(pipeline, "owner"), pipeline, {}, Ledger(), reuse=reuse)
    )
    await wait_until(lambda: list(reuse.shared_steps.waiting.values()) == [1])
    other = asyncio.create_task(
        run(claim_for(pipeline, "other"), pipeline, {}, ledger, reuse=reuse)
    )
    await wait_until(lambda: list(reuse.shared_steps.waiting.values()) == [2])
    owner.cancel()
    await asyncio.wait({owner})
    may_end.set()
    assert await other is Status.COMPLETED
    work = ledger.records["costly"].work
    assert work is not None
    assert (work.elapsed, work.llm_tokens) == (0.0, 7)


def test_results_without_their_reports_are_equal_whenever_they_were_computed() -> None:
    codec = ArtifactCodec()
    value = {name: name for name in "qwertyuiop"}
    early, late = (
        codec.encode("s", value) + report_fragment("s", StepState.COMPLETED, started_us=at)
        for at in (1, 2)
    )
    assert result_of(early) == result_of(late)
    assert codec.decode("s", result_of(early)) == value
    computed, kept = pb.STEP_ORIGIN_COMPUTED, pb.STEP_ORIGIN_KEPT
    for created_us, origin in ((1, computed), (2, computed), (3, kept)):
        whole = merged(late, created_us)
        assert whole is not None
        assert pb.GetResultsResponse.FromString(whole).steps["s"].origin == origin


async def test_a_shared_result_counts_to_each_runs_own_limit() -> None:
    memos = Dictionary()
    reuse = Reuse(memos)
    may_end = asyncio.Event()

    class Size(BaseModel):
        own: int

    @step()
    async def first(own: int) -> bytes:
        return b"x" * own

    @step(memo=True)
    async def shared() -> bytes:
        await may_end.wait()
        return b"x" * 600

    pipeline = pipeline_of(first, shared, inputs=Size)

    async def ran(key: str, own: int) -> Ledger:
        ledger = Ledger()
        claim = claim_for(pipeline, key, own=own)
        await run(claim, pipeline, {}, ledger, limits=Limits(1000, 1000), reuse=reuse)
        return ledger

    async with asyncio.TaskGroup() as group:
        full = group.create_task(ran("full", 900))
        roomy = group.create_task(ran("roomy", 10))
        await wait_until(lambda: len(tasks_left()) > 0)
        may_end.set()
    assert "HEADSTART_MAX_RUN_BYTES" in full.result().report("shared").error
    assert roomy.result().records["shared"].state is StepState.COMPLETED
    late = await ran("late", 900)
    assert "HEADSTART_MAX_RUN_BYTES" in late.report("shared").error, "remembered, and too much"


async def test_flights_that_are_closed_leave_no_timer_behind() -> None:
    shared_steps = SharedSteps()
    shared_steps.hold_for = 600.0
    shared_steps.hold(RunKey("default", "one"))
    await shared_steps.aclose()
    left = weakref.ref(shared_steps)
    del shared_steps
    gc.collect()
    assert left() is None, "the loop keeps what a timer is to call"
