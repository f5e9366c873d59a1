"""Figures of the engine: times, tries and costs of steps, each met exactly. Time is virtual."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Claim, Status, StepState
from headstart_service.domain.errors import ExecutorUnavailable, StartupError, StepFailed
from headstart_service.pipeline.identity import identity_of
from headstart_service.pipeline.step import Step, step
from headstart_service.values.limits import Limits
from headstart_service.worker import run as run_module
from headstart_service.worker import step_run
from headstart_service.worker.batching import Batcher
from headstart_service.worker.cost_meter import METER, CostMeter, spend
from headstart_service.worker.executors import processes, threads
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.executors.processes import Processes
from headstart_service.worker.executors.queueing import queueing
from headstart_service.worker.executors.watchdog import LoopBlocked, Piece, Watchdog
from headstart_service.worker.offers import makers_of
from headstart_service.worker.reasons import failure_of, readable
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from headstart_service.worker.step_deadline import seconds_left
from headstart_service.worker.worker_observer import StepOutcome, WorkObservers
from tests.support import executors as harm
from tests.support.ledger import CLAIMED_US, Dictionary, Ledger, claim_for, claim_of, pipeline_of
from tests.support.virtual_time import Clock, run_virtually
from tests.support.waiting import wait_until

COMPLETED, FAILED = StepState.COMPLETED, StepState.FAILED
SECOND = 1_000_000


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The runner's clock."""
    made = Clock()
    module = SimpleNamespace(monotonic=made, time_ns=lambda: round(made.now * 1e9))
    monkeypatch.setattr(run_module, "time", module)
    monkeypatch.setattr(step_run, "time", module)
    return made


class Outcomes(WorkObservers):
    """Keeps how each step ended."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, StepOutcome] = {}

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        yield
        self.steps[name] = outcome


# Times and costs of a step


async def test_a_step_has_its_times_tries_and_costs(clock: Clock) -> None:
    tries = 0

    @step()
    async def first() -> int:
        clock.now += 2.5
        spend(cpu_seconds=1000.0, llm_tokens=7)
        return 1

    @step(max_attempts=3, backoff=0.0)
    async def second(first: int) -> int:
        nonlocal tries
        tries += 1
        clock.now += 0.25
        spend(llm_tokens=2)
        if tries < 3:
            raise StepFailed(f"try {tries}")
        return first

    @step(max_attempts=2, backoff=0.0)
    async def third(second: int) -> int:
        clock.now += 4.0
        raise StepFailed("never")

    pipeline, ledger, outcomes = pipeline_of(first, second, third), Ledger(), Outcomes()
    assert await run(claim_of(pipeline), pipeline, {}, ledger, outcomes) is Status.COMPLETED
    told = {name: ledger.report(name) for name in ("first", "second", "third")}
    started = {name: report.started_us - CLAIMED_US for name, report in told.items()}
    assert started == {"first": 0, "second": 2_500_000, "third": 3_250_000}
    took = {name: report.elapsed.ToMicroseconds() for name, report in told.items()}
    assert took == {"first": 2_500_000, "second": 750_000, "third": 8 * SECOND}
    assert {name: report.attempts for name, report in told.items()} == {
        "first": 1,
        "second": 3,
        "third": 2,
    }
    errors = {name: report.error for name, report in told.items()}
    assert errors == {"first": "", "second": "", "third": "never"}
    work = {name: ledger.records[name].work for name in told}
    assert all(work.values())
    assert {n: w.elapsed for n, w in work.items() if w} == {
        "first": 2.5,
        "second": 0.75,
        "third": 8.0,
    }
    assert {n: w.llm_tokens for n, w in work.items() if w} == {"first": 7, "second": 6, "third": 0}
    assert work["first"] is not None
    assert work["first"].cpu_seconds >= 1000.0
    second_tried = outcomes.steps["second"].tried
    assert [(each.error, each.ended_ns) for each in second_tried] == [
        ("try 1", 1_002_750_000_000),
        ("try 2", 1_003_000_000_000),
    ]
    assert len(outcomes.steps["third"].tried) == 2
    assert (outcomes.steps["third"].state, outcomes.steps["third"].error) == ("failed", "never")


async def test_a_result_that_a_run_has_no_room_for_keeps_its_times(clock: Clock) -> None:
    @step()
    async def small() -> str:
        clock.now += 1.0
        return "x" * 100

    @step(max_attempts=2, backoff=0.0)
    async def large(small: str) -> str:
        clock.now += 2.0
        if clock.now < 1004.0:
            raise StepFailed("once")
        return "y" * 1000

    pipeline, ledger, outcomes = pipeline_of(small, large), Ledger(), Outcomes()
    limits = Limits(run=1000)
    await run(claim_of(pipeline), pipeline, {}, ledger, outcomes, limits)
    report = ledger.report("large")
    assert report.state == pb.STEP_STATE_FAILED
    assert report.error.endswith("HEADSTART_MAX_RUN_BYTES is 1,000")
    assert (report.started_us - CLAIMED_US, report.elapsed.ToMicroseconds()) == (
        SECOND,
        4 * SECOND,
    )
    assert report.attempts == 2
    assert outcomes.steps["large"].state == "failed"
    assert outcomes.steps["large"].error == report.error
    work = ledger.records["large"].work
    assert work is not None
    assert work.elapsed == 4.0


async def test_a_remembered_step_has_its_own_times_and_costs_nothing(clock: Clock) -> None:
    @step(memo=True)
    async def word() -> str:
        clock.now += 3.0
        return "sea"

    @step()
    async def before() -> int:
        clock.now += 0.5
        return 1

    pipeline = pipeline_of(before, word)
    memos = Dictionary()

    class Slow(Dictionary):
        async def memo_get(self, namespace: str, digest: str) -> bytes | None:
            clock.now += 1.5
            return await memos.memo_get(namespace, digest)

    await run(claim_for(pipeline, "one"), pipeline, {}, Ledger(), reuse=Reuse(memos))
    ledger, outcomes = Ledger(), Outcomes()
    claim = claim_for(pipeline, "two")
    await run(claim, pipeline, {}, ledger, outcomes, reuse=Reuse(Slow()))
    report = ledger.report("word")
    assert report.origin == pb.STEP_ORIGIN_MEMOISED
    assert (report.attempts, ledger.value("word")) == (0, "sea")
    assert report.elapsed.ToMicroseconds() == 1_500_000 + 500_000
    assert report.started_us == CLAIMED_US
    assert ledger.records["word"].work is None
    assert outcomes.steps["word"].memoised


async def test_neither_a_failure_nor_a_step_without_a_memo_is_remembered() -> None:
    @step(memo=True)
    async def fails() -> int:
        raise StepFailed("no")

    @step()
    async def plain() -> int:
        return 1

    memos = Dictionary()
    pipeline = pipeline_of(fails, plain)
    await run(claim_of(pipeline), pipeline, {}, Ledger(), reuse=Reuse(memos))
    assert memos.kept == {}


@pytest.mark.parametrize(("seconds", "shown"), [(0.0049, False), (0.0051, True)])
def test_steps_of_five_milliseconds_are_shown_as_running(
    seconds: float,
    shown: bool,  # noqa: FBT001
) -> None:
    @step()
    async def naps() -> int:
        await asyncio.sleep(seconds)
        return 1

    async def ran() -> Ledger:
        pipeline, ledger = pipeline_of(naps), Ledger()
        await run(claim_of(pipeline), pipeline, {}, ledger)
        return ledger

    writes = run_virtually(ran()).writes
    assert [[record.name for record in write.running] for write in writes] == (
        [["naps"], []] if shown else [[]]
    )


# How long a step may take, wherever it runs


@step(timeout=0.05, runs_on="thread")
def slow_thread() -> float | None:
    left = seconds_left()
    time.sleep(0.3)
    return left


@step(timeout=0.05)
async def slow_loop() -> float | None:
    left = seconds_left()
    await asyncio.sleep(3600)
    return left


@pytest.mark.parametrize("each", [slow_thread, slow_loop], ids=lambda s: s.runs_on)
async def test_a_try_ends_with_its_time_wherever_it_runs(each: Step) -> None:
    pipeline, ledger, outcomes = pipeline_of(each), Ledger(), Outcomes()
    async with asyncio.timeout(10):
        await run(claim_of(pipeline), pipeline, {}, ledger, outcomes)
    assert ledger.report(each.name).error == "took longer than 0.05 s"
    assert outcomes.steps[each.name].state == "failed"


@step(timeout=600.0, runs_on="thread")
def asks_in_thread() -> float | None:
    return seconds_left()


@step(timeout=600.0)
async def asks_on_loop() -> float | None:
    return seconds_left()


@pytest.mark.parametrize("each", [asks_in_thread, asks_on_loop], ids=lambda s: s.runs_on)
async def test_a_step_can_ask_how_much_of_its_time_is_left(each: Step) -> None:
    pipeline, ledger = pipeline_of(each), Ledger()
    await run(claim_of(pipeline), pipeline, {}, ledger)
    assert 500.0 < ledger.value(each.name) <= 600.0
    assert seconds_left() is None


def test_a_step_waits_for_its_place_until_its_own_limit_and_no_longer() -> None:
    async def wait(limit: float, body: float) -> float:
        began = loop_time()
        try:
            async with queueing(limit, "thread"):
                await asyncio.sleep(body)
        finally:
            assert loop_time() - began == pytest.approx(min(limit, body))
        return body

    assert run_virtually(wait(3.0, 2.9)) == 2.9
    with pytest.raises(StepFailed, match=r"^waited 3 s for a free thread$") as failed:
        run_virtually(wait(3.0, 3.1))
    assert not failed.value.retry

    async def own() -> None:
        async with queueing(3.0, "thread"):
            raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        run_virtually(own())


@step(timeout=2.0, runs_on="process")
def short() -> int:
    return 1


@step(timeout=60.0, runs_on="process")
def long() -> int:
    return 1


@pytest.mark.parametrize(("each", "seconds"), [(short, 2.0), (long, 10.0)])
def test_a_step_waits_for_a_place_that_is_away_for_ten_seconds_or_its_own_time(
    each: Step, seconds: float
) -> None:
    async def wait(mended: float | None) -> float:
        async with Executors() as executors:
            executors._broken[each.function.__module__] = "its files have changed"

            def mend() -> None:
                executors._broken.clear()
                executors._notify()

            loop = asyncio.get_running_loop()
            loop.call_later(1.0, executors._notify)  # a change that does not help
            if mended is not None:
                loop.call_later(mended, mend)
            began = loop_time()
            with suppress(ExecutorUnavailable):
                await executors.ready(each)
                return loop_time() - began
            assert mended is None
            return -(loop_time() - began)

    assert run_virtually(wait(None)) == pytest.approx(-seconds)
    assert run_virtually(wait(1.5)) == pytest.approx(1.5)


def test_the_rules_of_places_leave_no_step_waiting_for_ever() -> None:
    rules = ExecutorRules()
    assert (rules.threads, rules.processes, rules.wait, rules.block_limit) == (4, 2, 300.0, 0.0)


def test_a_step_that_goes_on_after_its_cancellation_has_five_seconds() -> None:
    async def cancelled(naps: float) -> tuple[float, bool]:
        ended = False

        @step()
        async def lingers() -> int:
            nonlocal ended
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(naps)
                ended = True
                raise
            return 1

        async with Executors() as executors:
            task = asyncio.create_task(executors.call(lingers, {}, CostMeter()))
            await asyncio.sleep(1.0)
            task.cancel()
            began = loop_time()
            await asyncio.wait({task})
            assert task.cancelled()
            return round(loop_time() - began, 6), ended

    assert run_virtually(cancelled(4.9)) == (4.9, True)
    assert run_virtually(cancelled(5.1)) == (5.0, False)


# Threads and processes


def burn(seconds: float) -> float:
    """Use so much CPU on this thread alone."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))
    return seconds


async def test_threads_are_used_again_and_each_step_pays_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []

    @step(runs_on="thread")
    def burns() -> float:
        names.append(threading.current_thread().name)
        return burn(0.05)

    async with Executors(ExecutorRules(threads=3)) as executors:
        for _ in range(3):
            meter = CostMeter()
            assert await executors.call(burns, {}, meter) == 0.05
            # The process burned 0.05 s, of which other threads may have taken a part.
            assert 0.01 <= meter.cpu_seconds < 0.1
    assert names == ["step 1"] * 3


async def test_a_thread_that_is_left_counts_as_hung_after_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    module = SimpleNamespace(monotonic=clock, thread_time=time.thread_time)
    monkeypatch.setattr(threads, "time", module)
    caplog.set_level(logging.INFO, "headstart_service")
    go = threading.Event()

    @step(runs_on="thread")
    def waits() -> int:
        go.wait(30)
        return 1

    meter = CostMeter()
    async with Executors(ExecutorRules(threads=1)) as executors:
        assert executors.hung_threads == 0
        task = asyncio.create_task(executors.call(waits, {}, meter))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        assert (
            "waits goes on in its thread, though no run waits for it: 1 threads do; it is replaced"
            in (caplog.text)
        )
        for later, hung in ((59.9, 0), (0.1, 1)):
            clock.now += later
            assert executors.hung_threads == hung
        go.set()
        await wait_until(
            lambda: "waits has ended in its thread, which is free again" in caplog.text
        )
        assert executors.hung_threads == 0


def test_a_process_that_cannot_be_replaced_is_tried_again_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[float] = []
    killed: list[bool] = []

    class Child:
        async def kill(self) -> tuple[int, float]:
            killed.append(True)
            return 0, 0.0

    made = Child()

    class Starting:
        @classmethod
        async def start(cls, modules: Sequence[str]) -> Any:
            tried.append(loop_time())
            if len(tried) < 9:
                raise (StartupError, OSError)[len(tried) % 2]("no memory")
            return made

    async def replaced() -> None:
        steps = Processes(1, 300.0)
        monkeypatch.setattr(processes, "_Child", Starting)
        await steps._replace(Child())  # type: ignore[arg-type]
        assert await steps._free.get() is made
        assert len(killed) == 1
        await steps.aclose()
        assert len(killed) == 2, "what was started is ended"

    run_virtually(replaced())
    assert tried == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 45.5, 60.5]
    assert "no memory; next try in 0.5 s" in caplog.text
    assert "no memory; next try in 15 s" in caplog.text


def test_processes_end_though_one_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Child:
        pid = 1

        async def call(self, *_: Any) -> Any:
            raise processes._Lost

        async def kill(self) -> tuple[int, float]:
            return -9, 1.5

    async def lost() -> float:
        steps = Processes(1, 300.0)
        steps._prepared = True
        steps._free.put_nowait(Child())  # type: ignore[arg-type]
        meter = CostMeter()
        with pytest.raises(StepFailed, match="its process was killed by SIGKILL: out of memory"):
            await steps.call(short, {}, meter)
        assert meter.cpu_seconds == 1.5
        with pytest.raises(StepFailed, match=r"^waited 300 s for a free process$"):
            await steps.call(short, {}, meter)
        began = loop_time()
        async with asyncio.timeout(60.0):
            await steps.aclose()
        return loop_time() - began

    class Starting:
        @classmethod
        async def start(cls, _: Sequence[str]) -> Any:
            raise OSError("no memory")

    monkeypatch.setattr(processes, "_Child", Starting)
    assert run_virtually(lost()) == 0.0


async def test_what_a_process_has_used_is_paid_when_it_is_killed(tmp_path: Any) -> None:
    meter = CostMeter()
    async with Executors(ExecutorRules(processes=1)) as executors:
        task = asyncio.create_task(
            executors.call(burns_and_waits, {"directory": str(tmp_path)}, meter)
        )
        await wait_until((tmp_path / "burnt").exists)
        task.cancel()
        await asyncio.wait({task})
        assert 0.15 <= meter.cpu_seconds < 5.0
        dead = CostMeter()
        with pytest.raises(StepFailed, match="exit code 5"):
            await executors.call(burns_and_dies, {}, dead)
        assert 0.15 <= dead.cpu_seconds < 5.0


@step(runs_on="process", timeout=60)
def burns_and_waits(directory: str) -> int:
    from pathlib import Path

    harm.burn(0.15)
    (Path(directory) / "burnt").touch()
    time.sleep(60)
    return 1


@step(runs_on="process", timeout=60)
def burns_and_dies() -> int:
    import os

    harm.burn(0.15)
    os._exit(5)


# What the watchdog hits


def frames(*names: str) -> Any:
    """A stack whose functions are of these modules, the innermost first."""
    frame: Any = None
    for name in reversed(names):
        frame = SimpleNamespace(f_globals={"__name__": name}, f_back=frame)
    return frame


DRIVER = "headstart_service.worker.executors.event_loop"
USER = "shop.steps"


@pytest.mark.parametrize(
    ("stack", "raises"),
    [
        ((USER, DRIVER), True),
        (("shop.prices", USER, DRIVER, "asyncio.events"), True),
        (("headstart_service.pipelines.bridging.clues", DRIVER), True),
        (("headstart_service.pipelines.bridging", USER, DRIVER), True),
        (("asyncio.locks", USER, DRIVER), False),
        (("headstart_service.worker.batching", USER, DRIVER), False),
        (("headstart_service.pipelines", USER, DRIVER), False),
        ((USER, "headstart_service.worker.cost_meter", USER, DRIVER), False),
        (("logging", USER, DRIVER), False),
        (("threading", USER, DRIVER), False),
        (("queue", USER, DRIVER), False),
        (("importlib._bootstrap", USER, DRIVER), False),
        ((USER, "importlib._bootstrap_external", USER, DRIVER), False),
        ((USER, "_frozen_importlib", USER, DRIVER), False),
        ((DRIVER, "asyncio.events"), False),
        ((), False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_step_is_interrupted_in_its_own_code_alone(
    stack: tuple[str, ...],
    raises: bool,  # noqa: FBT001
) -> None:
    watchdog, piece = Watchdog(1.0), Piece()
    watchdog.current = watchdog._doomed = piece
    if raises:
        with pytest.raises(LoopBlocked):
            watchdog._interrupt(0, frames(*stack))
    else:
        watchdog._interrupt(0, frames(*stack))
    assert piece.interrupted is raises
    forgiven = any("importlib" in name for name in stack)
    assert (watchdog._forgiven is piece) is forgiven, "an import has as long again"
    assert watchdog._doomed is None


def test_a_signal_that_comes_late_interrupts_no_other_step() -> None:
    watchdog = Watchdog(1.0)
    watchdog._doomed, watchdog.current = Piece(), Piece()
    watchdog._interrupt(0, frames(USER, DRIVER))
    watchdog._interrupt(0, frames(USER, DRIVER))
    assert not watchdog.current.interrupted


class Looks:
    """Stands for the event that a watchdog waits for; each wait is one look."""

    def __init__(self, watchdog: Watchdog, pieces: Sequence[Piece | None]) -> None:
        self._watchdog, self._pieces = watchdog, list(pieces)
        self.pauses: list[float] = []

    def wait(self, pause: float) -> bool:
        self.pauses.append(pause)
        if not self._pieces:
            return True
        self._watchdog.current = self._pieces.pop(0)
        return False


def watched(
    monkeypatch: pytest.MonkeyPatch,
    pieces: Sequence[Piece | None],
    forgive: Callable[[Watchdog, int], None] = lambda _, __: None,
) -> tuple[list[int], list[float]]:
    """The looks after which a signal was sent, and the pauses before each look."""
    watchdog = Watchdog(1.0)
    looks = Looks(watchdog, pieces)
    watchdog._end = looks  # type: ignore[assignment]
    sent: list[int] = []

    def kill(thread: int | None, number: int) -> None:
        assert thread == threading.main_thread().ident
        assert watchdog._doomed is watchdog.current
        sent.append(len(looks.pauses))
        forgive(watchdog, len(sent))

    monkeypatch.setattr("headstart_service.worker.executors.watchdog.signal.pthread_kill", kill)
    watchdog._watch()
    return sent, looks.pauses


def test_a_piece_is_stopped_when_it_was_seen_once_and_then_five_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = Piece(), Piece()
    sent, pauses = watched(monkeypatch, [None, one, one, one, one, one, other, None, one])
    assert (sent, pauses) == ([], [0.2] * 10)
    sent, pauses = watched(monkeypatch, [one] * 8)
    assert sent == [6, 7, 8]
    # After a signal that came at a bad moment the next one is sent soon.
    assert pauses == [0.2] * 6 + [0.01] * 3


def test_an_import_under_way_has_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgive(watchdog: Watchdog, times: int) -> None:
        if times == 1:
            watchdog._forgiven = watchdog.current

    sent, _ = watched(monkeypatch, [Piece()] * 1 + [piece := Piece()] * 13, forgive)
    assert piece
    assert sent == [7, 13, 14]


# Reasons, makers, batches


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 1999 + "…"),
        ("a\ud800b", "a?b"),
    ],
    ids=["longest", "too long", "surrogate"],
)
def test_a_reason_has_2000_characters(text: str, told: str) -> None:
    assert readable(text) == told
    assert readable(StepFailed(text)) == told


def test_a_groups_reason_counts_the_others_and_is_no_longer() -> None:
    group = ExceptionGroup(
        "both", [ValueError("x"), ExceptionGroup("in", [StepFailed("y" * 3000), StepFailed("z")])]
    )
    failed = failure_of(group)
    assert failed is not None
    assert str(failed) == "y" * (2000 - len(" (and 2 more)")) + " (and 2 more)"
    assert failed.retry
    alone = failure_of(ExceptionGroup("one", [StepFailed("alone", retry=False)]))
    assert (str(alone), alone.retry if alone else None) == ("alone", False)
    assert failure_of(ExceptionGroup("none", [ValueError("x")])) is None


def test_a_maker_is_six_characters_of_what_a_step_is_made_by() -> None:
    class Model:
        identity = "model-1"

    @step()
    async def embedded(model: Any) -> int:
        return 1

    @step()
    async def after(embedded: int) -> int:
        return 1

    @step()
    async def plain() -> int:
        return 1

    pipeline = pipeline_of(embedded, after, plain)
    makers = makers_of(pipeline, {"model": Model(), "other": Model()})
    assert makers.keys() == {"embedded", "after"}
    assert {len(maker) for maker in makers.values()} == {6}
    assert makers["embedded"] != makers["after"]
    assert identity_of(Model()) == "model-1"


async def test_an_item_that_fails_alone_is_computed_once() -> None:
    batches: list[list[int]] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        if 7 in items:
            raise ValueError("seven")
        return items

    observed: list[int] = []
    async with Batcher(
        compute,
        max_batch=8,
        max_waiting=8,
        name="once",
        observe=lambda items, seconds: observed.append(items),
    ) as batcher:
        with pytest.raises(ValueError, match="seven"):
            await batcher.submit(7)
        assert batches == [[7]]
        told = await asyncio.gather(
            *(batcher.submit(each) for each in (1, 2, 7, 3)), return_exceptions=True
        )
        assert told[0:2] == [1, 2]
        assert isinstance(told[2], ValueError)
    assert [7] in batches[1:]
    assert sum(observed) == 3, "what failed is no batch that was computed"


async def test_an_items_cpu_is_its_share_by_weight_of_all_threads() -> None:
    def compute(items: Sequence[int]) -> Sequence[int]:
        burn(0.05)
        return items

    async def submit(batcher: Batcher[int, int], item: int) -> float:
        meter = CostMeter()
        METER.set(meter)
        await batcher.submit(item)
        return meter.cpu_seconds

    async with Batcher(
        compute, max_batch=2, max_waiting=8, name="w", weigh=float, threads=lambda: 3
    ) as batcher:
        hold = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        one, three = await asyncio.gather(submit(batcher, 1), submit(batcher, 3))
        await hold
    assert three == pytest.approx(3 * one)
    assert 0.15 <= one + three < 0.3


def test_a_loop_in_another_thread_is_not_watched_by_signals() -> None:
    raised: list[BaseException] = []

    def watch() -> None:
        try:
            with Watchdog(0.5) as watchdog:
                assert watchdog.limit == 0.5
                assert not [t for t in threading.enumerate() if t.name == "loop watchdog"]
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join(10)
    assert raised == []
    before = signal.getsignal(signal.SIGURG)
    with Watchdog(0.5):
        assert signal.getsignal(signal.SIGURG) != before
        assert [t for t in threading.enumerate() if t.name == "loop watchdog"]
    assert signal.getsignal(signal.SIGURG) == before
    with Watchdog(0.0):
        assert not [t for t in threading.enumerate() if t.name == "loop watchdog"]


def test_a_step_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @step()
    async def clings() -> int:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
            except GeneratorExit:
                raise RuntimeError("not yet") from None

    async def cancelled() -> None:
        async with Executors() as executors:
            task = asyncio.create_task(executors.call(clings, {}, CostMeter()))
            await asyncio.sleep(1.0)
            task.cancel()
            await asyncio.wait({task})

    run_virtually(cancelled())
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "clings went on after it was cancelled: closed",
        "clings could not be closed: RuntimeError('not yet')",
    ]


def test_a_step_that_deals_with_its_own_cancellation_has_all_its_time_again() -> None:
    @step()
    async def waits() -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.sleep(3600)
        await asyncio.sleep(60.0)
        return 1

    async def called() -> float:
        async with Executors() as executors:
            assert await executors.call(waits, {}, CostMeter()) == 1
            return loop_time()

    assert run_virtually(called()) == 61.0


async def test_a_step_without_a_file_cannot_run_in_a_process() -> None:
    module = ModuleType("made_up")
    exec("def lost() -> int:\n    return 1\n", module.__dict__)
    sys.modules["made_up"] = module
    try:
        lost = step(runs_on="process")(module.lost)
        async with Executors() as executors:
            with pytest.raises(
                StartupError, match=r"^step lost: module made_up comes from no file"
            ):
                await executors.prepare([pipeline_of(lost)])
            await executors.prepare([])
    finally:
        del sys.modules["made_up"]
