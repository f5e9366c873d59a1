"""Figures of executors: how long steps may take, wait and go on. Time is virtual where it can be."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from headstart_service.domain.errors import ExecutorUnavailable, StartupError, StepFailed
from headstart_service.pipeline.step import Step, step
from headstart_service.worker.cost_meter import CostMeter
from headstart_service.worker.executors import threads
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.executors.processes import Processes, ProcessLost
from headstart_service.worker.executors.queueing import queueing
from headstart_service.worker.executors.watchdog import Watchdog
from headstart_service.worker.run import run
from headstart_service.worker.step_deadline import seconds_left
from tests.support import executors as harm
from tests.support.ledger import Ledger, claim_of, pipeline_of
from tests.support.outcomes import Outcomes
from tests.support.virtual_time import Clock, loop_time, run_virtually
from tests.support.waiting import wait_until

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


@step(timeout=2.0, runs_on="ray")
def short() -> int:
    return 1


@step(timeout=60.0, runs_on="ray")
def long() -> int:
    return 1


class RayAway:
    """A cluster that cannot run any step until it is mended."""

    def __init__(
        self, _address: str | None, _steps: Sequence[Step], changed: Callable[[], None]
    ) -> None:
        self._away: str | None = "its nodes are away"
        self.changed = changed

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def unavailable(self, step: Step) -> str | None:
        return self._away

    def mend(self) -> None:
        self._away = None
        self.changed()


@pytest.mark.parametrize(("each", "seconds"), [(short, 2.0), (long, 10.0)])
def test_a_step_waits_for_a_place_that_is_away_for_ten_seconds_or_its_own_time(
    each: Step, seconds: float
) -> None:
    async def wait(mended: float | None) -> float:
        made: list[RayAway] = []

        def cluster(*given: Any) -> Any:
            made.append(RayAway(*given))
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, made[0].changed)  # a change that does not help
            if mended is not None:
                loop.call_later(mended, made[0].mend)
            return made[0]

        async with Executors(ray_cluster=cluster) as executors:
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


@step(runs_on="process")
def apart() -> int:
    return 1


class Child:
    """A process that runs one step, or ends by itself."""

    pid = 1

    def __init__(self, *, lost: bool) -> None:
        self._lost = lost
        self.killed = 0

    async def call(self, *_: Any) -> Any:
        if self._lost:
            raise ProcessLost
        return 1

    async def kill(self) -> tuple[int, float]:
        self.killed += 1
        return -9, 1.5

    async def close(self) -> None:
        await self.kill()


def test_a_process_that_cannot_be_replaced_is_tried_again_ever_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[float] = []
    first, made = Child(lost=True), Child(lost=False)

    async def start(_: Sequence[str], __: object) -> Any:
        tried.append(loop_time())
        if len(tried) == 1:
            return first
        if len(tried) < 10:
            raise (OSError, StartupError)[len(tried) % 2]("no memory")
        return made

    async def replaced() -> None:
        steps = Processes(1, 300.0, start)
        with pytest.raises(StepFailed):
            await steps.call(apart, {}, CostMeter())
        assert await steps.call(apart, {}, CostMeter()) == 1
        assert first.killed
        assert not made.killed
        await steps.aclose()
        assert made.killed == 1, "what was started is ended"

    run_virtually(replaced())
    assert tried == [0.0, 0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 45.5, 60.5]
    assert "no memory; next try in 0.5 s" in caplog.text
    assert "no memory; next try in 15 s" in caplog.text


def test_processes_end_though_one_cannot_be_replaced() -> None:
    children = [Child(lost=True)]

    async def start(_: Sequence[str], __: object) -> Any:
        if children:
            return children.pop()
        raise OSError("no memory")

    async def lost() -> float:
        steps = Processes(1, 300.0, start)
        meter = CostMeter()
        with pytest.raises(StepFailed, match="its process was killed by SIGKILL: out of memory"):
            await steps.call(apart, {}, meter)
        assert meter.cpu_seconds == 1.5
        with pytest.raises(StepFailed, match=r"^waited 300 s for a free process$"):
            await steps.call(apart, {}, meter)
        began = loop_time()
        async with asyncio.timeout(60.0):
            await steps.aclose()
        return loop_time() - began

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


# Loops that step functions keep or leave


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
