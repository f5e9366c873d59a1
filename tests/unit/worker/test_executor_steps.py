"""Where steps run, and what becomes of those that do harm there."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from headstart_service.domain import Status, StepState
from headstart_service.domain.errors import ExecutorUnavailable, StartupError, StepFailed
from headstart_service.pipeline.checks import refuse_unreachable
from headstart_service.pipeline.ray_options import RayOptions
from headstart_service.pipeline.step import Step, step
from headstart_service.worker.cost_meter import CostMeter
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.executors.processes import Child, Processes
from headstart_service.worker.run import run
from tests.support import executors as harm
from tests.support import processes
from tests.support.ledger import Ledger, claim_of, pipeline_of
from tests.support.waiting import wait_until

BLOCKED = "blocked the event loop for more than 0.5 s: use runs_on='thread'"


@pytest.fixture
async def executors() -> AsyncIterator[Executors]:
    async with Executors(ExecutorRules(threads=2, processes=1, block_limit=0.5)) as made:
        yield made


async def call(executors: Executors, each: Step, meter: CostMeter | None = None, **arguments):
    async with asyncio.timeout(each.timeout):
        return await executors.call(each, arguments, meter or CostMeter())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("each", [harm.looped, harm.threaded, harm.tells], ids=lambda s: s.runs_on)
async def test_cpu_seconds_are_measured_wherever_a_step_runs(executors, each, tmp_path) -> None:
    meter = CostMeter()
    result = await call(executors, each, meter, directory=str(tmp_path))
    assert result not in (0, os.getpid())
    assert meter.cpu_seconds > 0.04


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_step_that_blocks_the_loop_is_stopped_and_told(factory, tmp_path, caplog) -> None:
    async def main() -> None:
        async with Executors(ExecutorRules(block_limit=0.5)) as executors:
            meter = CostMeter()
            beside = asyncio.create_task(asyncio.sleep(0.01, "well"))
            with pytest.raises(StepFailed, match=re.escape(BLOCKED)) as failed:
                await executors.call(harm.blocks, {"directory": str(tmp_path)}, meter)
            assert not failed.value.retry
            assert await beside == "well"
            assert meter.cpu_seconds > 0.05

    with asyncio.Runner(loop_factory=factory) as runner, caplog.at_level(logging.WARNING):
        runner.run(main())
    assert re.search(r"blocks blocked the event loop at .*support/executors\.py:\d+", caplog.text)


async def test_a_blocked_event_loop_is_logged_however_long_that_takes(
    executors, tmp_path, monkeypatch, caplog
) -> None:
    extract = traceback.extract_tb

    def slow(*arguments: Any) -> Any:
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        return extract(*arguments)

    monkeypatch.setattr(traceback, "extract_tb", slow)
    with pytest.raises(StepFailed, match=re.escape(BLOCKED)):
        await call(executors, harm.blocks, directory=str(tmp_path))
    assert "blocks blocked the event loop at" in caplog.text


async def test_a_step_that_swallows_its_interruption_fails_all_the_same(executors) -> None:
    @step()
    async def stubborn() -> int:
        try:
            while True:
                time.sleep(0.01)  # noqa: ASYNC251
        except BaseException:  # noqa: BLE001
            return 1

    with pytest.raises(StepFailed, match=re.escape(BLOCKED)):
        await call(executors, stubborn)


async def test_pieces_shorter_than_the_limit_are_left_alone(executors) -> None:
    @step()
    async def patient() -> int:
        for _ in range(7):
            time.sleep(0.1)  # noqa: ASYNC251
            await asyncio.sleep(0)
        return 1

    assert await call(executors, patient) == 1


async def test_an_import_under_way_is_not_broken_off(executors, tmp_path, monkeypatch) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nend = time.monotonic() + 1.2\nwhile time.monotonic() < end: pass\nvalue = 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    @step()
    async def importing() -> int:
        import slow_to_import  # type: ignore[import-not-found]

        return slow_to_import.value

    assert await call(executors, importing) == 5
    del sys.modules["slow_to_import"]


async def test_what_cannot_be_stopped_is_reported(caplog) -> None:
    async with Executors(ExecutorRules(block_limit=0.05)) as executors:

        @step()
        async def stuck() -> int:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})  # as C code would
            time.sleep(0.2)  # noqa: ASYNC251
            return 1

        try:
            assert await call(executors, stuck) == 1
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
    assert "stuck blocked the event loop for" in caplog.text


async def test_a_step_that_ignores_its_cancellation_is_closed() -> None:
    @step(timeout=0.05)
    async def endless() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async with Executors(grace=0.05) as executors:
        with pytest.raises(TimeoutError):
            await call(executors, endless)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_thread_that_never_ends_is_replaced_as_far_as_there_is_room(
    tmp_path, caplog
) -> None:
    async with Executors(ExecutorRules(threads=2, wait=0.3), hung_after=0.0) as executors:
        for left in range(1, 4):
            with pytest.raises(TimeoutError):
                await call(executors, harm.never_ends, directory=str(tmp_path))
            assert await call(executors, harm.threaded, directory=str(tmp_path)) == 0.05
            assert executors.hung_threads == left
        assert "3 threads do; it is not replaced" in caplog.text
        with pytest.raises(TimeoutError):
            await call(executors, harm.never_ends, directory=str(tmp_path))
        with pytest.raises(StepFailed, match=r"^waited 0\.3 s for a free thread$") as failed:
            await call(executors, harm.threaded, directory="")
        assert not failed.value.retry
        (tmp_path / "go").touch()
        await wait_until(lambda: executors.hung_threads == 0)
        both = [call(executors, harm.threaded, directory="") for _ in range(2)]
        assert await asyncio.gather(*both) == [0.05] * 2


@pytest.mark.parametrize("each", [harm.naps, harm.naps_apart], ids=lambda s: s.runs_on)
async def test_a_steps_time_begins_when_it_has_its_place(each: Step) -> None:
    twin = replace(each, name="twin")
    pipeline, ledger = pipeline_of(each, twin, replace(each, name="third")), Ledger()
    async with Executors(ExecutorRules(threads=1, processes=1)) as executors:
        status = await run(claim_of(pipeline), pipeline, {}, ledger, executors=executors)
    assert status is Status.COMPLETED
    assert {str(state) for state in ledger.states.values()} == {str(StepState.COMPLETED)}


async def test_a_step_waits_for_a_process_as_long_as_it_may(tmp_path) -> None:
    async with Executors(ExecutorRules(processes=1, wait=0.3)) as executors:
        held = asyncio.create_task(call(executors, harm.held, directory=str(tmp_path)))
        await wait_until((tmp_path / "held").exists, within=30)
        with pytest.raises(StepFailed, match=r"^waited 0\.3 s for a free process$"):
            await call(executors, harm.tells, directory="")
        (tmp_path / "go").touch()
        assert await held == 1
        assert await call(executors, harm.tells, directory="") != os.getpid()


async def test_threads_are_ended_with_their_places() -> None:
    async with Executors() as executors:
        await call(executors, harm.threaded, directory="")
    await wait_until(lambda: not any(t.name.startswith("step ") for t in threading.enumerate()))


async def test_a_process_that_dies_fails_its_step_and_is_replaced(executors, tmp_path) -> None:
    with pytest.raises(StepFailed, match="its process was killed by SIGKILL: out of memory"):
        await call(executors, harm.dies, directory=str(tmp_path))
    with pytest.raises(StepFailed, match="its process ended with exit code 3"):
        await call(executors, harm.leaves)
    dead = int((tmp_path / "deaths").read_text())
    assert await call(executors, harm.tells, directory=str(tmp_path)) != dead
    assert not alive(dead)


async def test_a_step_that_takes_too_long_is_killed_with_its_process_alone(tmp_path) -> None:
    async with Executors(ExecutorRules(processes=2)) as executors:
        beside = asyncio.create_task(call(executors, harm.held, directory=str(tmp_path)))
        await wait_until((tmp_path / "held").exists)
        with pytest.raises(TimeoutError):
            await call(executors, harm.hangs, directory=str(tmp_path))
        killed = int((tmp_path / "hangs").read_text())
        await wait_until(lambda: not alive(killed))
        (tmp_path / "go").touch()
        assert await beside == 1
        other = int((tmp_path / "held").read_text())
        assert alive(other)
    assert not alive(other)


async def test_what_a_killed_step_has_started_ends_with_it(tmp_path) -> None:
    async with Executors(ExecutorRules(processes=1)) as executors:
        waiting = asyncio.create_task(call(executors, harm.starts, directory=str(tmp_path)))
        file = tmp_path / "starts"
        await wait_until(lambda: file.exists() and file.read_text(), within=30)
        started = int(file.read_text())
        assert processes.alive(started)
        waiting.cancel()
        await wait_until(lambda: not processes.alive(started))


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
async def test_a_start_that_is_cancelled_leaves_no_process(turns: int) -> None:
    before = set(processes.children(os.getpid()))
    starting = asyncio.create_task(Child.start([]))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    assert set(processes.children(os.getpid())) == before


async def test_what_a_process_raises_stays_there_but_for_its_text(executors) -> None:
    with pytest.raises(Exception, match="ValueError: password=hunter2") as raised:
        await call(executors, harm.raises)
    assert type(raised.value).__name__ == "StepRaised"
    with pytest.raises(StepFailed, match="no such word") as failed:
        await call(executors, harm.refuses)
    assert not failed.value.retry
    with pytest.raises(StepFailed, match="returned a function, which cannot leave its process"):
        await call(executors, harm.unsendable)


async def test_a_process_that_cannot_import_its_pipeline_refuses_the_start() -> None:
    processes = Processes(1)
    with pytest.raises(StartupError, match="No module named 'no_such_module'"):
        await processes.prepare(["no_such_module"])
    await processes.aclose()


@pytest.mark.parametrize("runs_on", ["thread", "process", "ray"])
def test_an_async_function_runs_on_the_loop_alone(runs_on) -> None:
    with pytest.raises(TypeError, match=r"test_executor_steps\.py:\d+: step each must be a plain"):

        @step(runs_on=runs_on)
        async def each() -> int:
            return 1


def test_a_plain_function_does_not_run_on_the_loop() -> None:
    with pytest.raises(TypeError, match=r"test_executor_steps\.py:\d+: step each must be an async"):

        @step()
        def each() -> int:
            return 1


def test_an_unknown_place_and_a_local_function_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of loop, thread, process, ray, is 'moon'"):
        step(runs_on="moon")(test_an_unknown_place_and_a_local_function_are_refused)
    with pytest.raises(TypeError, match="a function at the top of its module"):

        @step(runs_on="process")
        def inner() -> int:
            return 1


class Model:
    """What an actor may hold."""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus must be 0, or 0.0001 or more, is -1"),
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number, is '2'"),
        ({"num_gpus": 1.5}, ValueError, "num_gpus must be at most 1, or a whole number, is 1.5"),
        ({"num_gpus": float("nan")}, ValueError, "num_gpus must be 0, or 0.0001 or more, is nan"),
        ({"num_gpus": True}, TypeError, "num_gpus must be a number, is True"),
        ({"resources": {"GPU": 1}}, ValueError, "other than CPU and GPU, is 'GPU': use num_cpus"),
        ({"resources": {"tpu": 0}}, ValueError, r"resources\['tpu'\] must be 0.0001 or more, is 0"),
        ({"resources": ["tpu"]}, TypeError, "resources must be a mapping from names"),
        ({"runtime_env": {1: "a"}}, TypeError, "runtime_env must be a mapping from names"),
        ({"actor": "Model"}, TypeError, "actor must be a class at the top of its module"),
        ({"actors": 2}, ValueError, "actors is 2, which needs an actor class"),
        ({"actor": Model, "actors": 0}, ValueError, "actors must be a whole number, 1 or more"),
    ],
    ids=str,
)
def test_options_for_ray_are_checked_where_they_are_declared(options, error, message) -> None:
    with pytest.raises(error, match=message):
        RayOptions(**options)


def test_options_for_ray_name_what_is_asked_of_it_alone() -> None:
    assert RayOptions().wanted() == {}
    full = RayOptions(
        num_cpus=0, num_gpus=0.5, resources={"tpu": 2}, runtime_env={"pip": ["six"]}, actor=Model
    )
    assert full.wanted() == {
        "num_cpus": 0,
        "num_gpus": 0.5,
        "resources": {"tpu": 2},
        "runtime_env": {"pip": ["six"]},
    }


def gives(word: str) -> str:
    return word


def holds(actor: Model, word: str) -> str:
    return word


def test_options_for_ray_need_a_step_on_ray_that_takes_its_actor() -> None:
    with pytest.raises(ValueError, match=r"step gives: ray=RayOptions\(…\) needs runs_on='ray'"):
        step(runs_on="thread", ray=RayOptions())(gives)
    with pytest.raises(TypeError, match="step gives needs a parameter actor, which gets the Model"):
        step(runs_on="ray", ray=RayOptions(actor=Model))(gives)
    held = step(runs_on="ray", ray=RayOptions(actor=Model))(holds)
    assert held.parameters == ("word",)  # the actor is no input, step or provider


async def test_a_process_with_other_code_than_its_worker_runs_none_of_it(
    tmp_path, monkeypatch, caplog
) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "prices.py").write_text("PRICE = 1\n")
    (package / "steps.py").write_text(
        "import os\n"
        "from headstart_service.sdk import step\n"
        "from shop.prices import PRICE\n"
        "@step(runs_on='process', timeout=0.2)\n"
        "def price() -> int: return PRICE\n"
        "@step(runs_on='process')\n"
        "def leaves() -> int: os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shop = importlib.import_module("shop.steps")
    pipeline = pipeline_of(shop.price, shop.leaves, name="shop")
    async with Executors(ExecutorRules(processes=1)) as executors:
        await executors.prepare([pipeline])
        assert await executors.call(shop.price, {}, CostMeter()) == 1
        (package / "prices.py").write_text("PRICE = 22\n")
        assert await executors.call(shop.price, {}, CostMeter()) == 1
        with pytest.raises(StepFailed):
            await executors.call(
                shop.leaves, {}, CostMeter()
            )  # its successor imports what is there now
        changes: list[object] = []
        executors.changed = lambda: changes.append(dict(executors.unavailable))
        with pytest.raises(
            ExecutorUnavailable, match="has other code of shop: the files have changed"
        ):
            await executors.call(shop.price, {}, CostMeter())
        reason = "its process has other code of shop: the files have changed, restart this worker"
        assert changes == [{"shop": reason}]
        assert f"price: {reason}" in caplog.text
        ledger = Ledger()
        with pytest.raises(ExecutorUnavailable, match="restart this worker"):
            await run(claim_of(pipeline), pipeline, {}, ledger, executors=executors)
        assert ledger.end is None
    for name in ("shop", "shop.steps", "shop.prices"):
        del sys.modules[name]


@step(runs_on="process")
def embeds(embedder: object) -> int:
    return 1


@step(runs_on="process")
def hidden() -> int:
    return 1


_kept = hidden
hidden = 5  # type: ignore[assignment]


def test_a_process_has_no_providers_and_imports_by_name() -> None:
    with pytest.raises(StartupError, match=r"test_executor_steps\.py:\d+: .*parameter embedder"):
        refuse_unreachable([pipeline_of(embeds)])
    with pytest.raises(StartupError, match="which is something else"):
        refuse_unreachable([pipeline_of(_kept)])


class Grouped:
    """Holds a step that other processes import by a name with a dot."""

    @step(runs_on="process")
    @staticmethod
    def nested() -> int:
        return 2


async def test_a_process_imports_a_step_that_a_class_holds(executors) -> None:
    refuse_unreachable([pipeline_of(Grouped.nested)])
    assert await call(executors, Grouped.nested) == 2


def test_an_error_names_the_line_of_a_step_that_a_class_holds() -> None:
    with pytest.raises(ValueError, match=r"test_executor_steps\.py:\d+: step nested: runs_on must"):
        step(runs_on="nowhere")(Grouped.nested.function)


def test_harm_is_declared_well(tmp_path: Path) -> None:
    refuse_unreachable([harm.HARM, harm.BESIDE, harm.HELD])


async def test_a_step_that_times_out_something_of_its_own_goes_on() -> None:
    @step()
    async def patient() -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        await asyncio.sleep(0.2)  # longer than a cancelled step is given
        return "done"

    async with Executors(grace=0.05) as executors:
        assert await executors.call(patient, {}, CostMeter()) == "done"


async def test_threads_that_steps_keep_are_not_the_engines(tmp_path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    gate = threading.Event()

    @step(timeout=0.2)
    async def hangs() -> bool:
        return await asyncio.to_thread(gate.wait)

    @step()
    async def large() -> list[int]:
        return list(range(200_000))

    pipeline, ledger = pipeline_of(hangs, large), Ledger()
    try:
        async with asyncio.timeout(10):
            await run(claim_of(pipeline), pipeline, {}, ledger)
    finally:
        gate.set()
    assert ledger.states == {"hangs": StepState.FAILED, "large": StepState.COMPLETED}
