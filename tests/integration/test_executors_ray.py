"""Steps on a real Ray of this machine: what they give, and what becomes of those that do harm."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from headstart import PrecomputeClient
from headstart_service.domain import Status
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.worker.cost_meter import CostMeter
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.run import run
from tests.support import executors_ray as steps
from tests.support.ledger import Ledger, claim_of
from tests.support.processes import Process, alive, api, headstart, worker
from tests.support.ray_nodes import RayNodes
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

WEATHER = """
from pydantic import BaseModel

from headstart_service.sdk import Pipeline, step


class Inputs(BaseModel):
    pass


@step(runs_on="ray", required=True, timeout=60)
def weather() -> str:
    return "{value}"


{name} = Pipeline(
    name="{module}", version="1", description="", inputs=Inputs, steps=(weather,)
)
"""


def weather(directory: Path, value: str, module: str = "weather") -> Path:
    """A directory with a module whose pipeline gives `value`."""
    directory.mkdir()
    text = WEATHER.format(value=value, name="PIPELINE", module=module)
    (directory / f"{module}.py").write_text(text)
    return directory


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """The token of every Ray here, which listens beyond the loopback: nobody else has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RayNodes]:
    """A Ray whose head has old weather."""
    directory = tmp_path_factory.mktemp("nodes")
    made = RayNodes(directory)
    try:
        await made.start(weather(directory / "old", "old"), shelf=2)
        yield made
    finally:
        await made.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executors(nodes: RayNodes) -> AsyncIterator[Executors]:
    async with Executors(ExecutorRules(ray_address=nodes.address)) as made:
        await made.prepare([steps.RAY, steps.HARM, steps.OPTIONS])
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def own_nodes(tmp_path: Path) -> AsyncIterator[RayNodes]:
    """A Ray of the test's own, which does not run yet."""
    made = RayNodes(tmp_path)
    try:
        yield made
    finally:
        await made.kill()


def settings(
    address: str, references: str = steps.REFERENCES, path: Path | None = None
) -> dict[str, str]:
    """Those of a worker, which also imports what is in `path`."""
    paths = (str(path or ""), os.environ.get("PYTHONPATH", ""))
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": references,
        "HEADSTART_RAY_ADDRESS": address,
        "HEADSTART_LEASE": "30",
        "HEADSTART_DRAIN": "0.5",
    }


async def readiness(process: Process) -> tuple[int, str]:
    """What a worker's /readyz gives."""
    port = (await process.says(r"HTTP on \S+:(\d+)"))[1]

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_a_step_runs_on_ray_and_reports_its_cpu_seconds(executors) -> None:
    meter = CostMeter()
    pid = await executors.call(steps.own_pid, {}, meter)
    assert pid != os.getpid()
    assert meter.cpu_seconds > 0.04
    assert not executors.unavailable


async def test_a_step_that_takes_too_long_is_ended_on_ray(executors, tmp_path) -> None:
    ledger, claim = Ledger(), claim_of(steps.HARM, {"directory": str(tmp_path)})
    assert await run(claim, steps.HARM, {}, ledger, executors=executors) is Status.COMPLETED
    assert ledger.report("hangs").error == "took longer than 3 s"
    assert ledger.report("hangs").attempts == 1
    hung = int((tmp_path / "hangs").read_text())
    await wait_until(lambda: not alive(hung))
    # Beside it one whose Ray worker dies: as often as it may be tried.
    assert ledger.report("dies").error == "Ray lost it: WorkerCrashedError"
    assert ledger.report("dies").attempts == 2
    assert (tmp_path / "deaths").read_text() == "xx"


async def test_what_a_step_raises_on_ray_is_reported_as_elsewhere(executors) -> None:
    with pytest.raises(Exception, match="ValueError: password=hunter2"):
        await executors.call(steps.raises, {}, CostMeter())
    with pytest.raises(StepFailed, match="no such word") as failed:
        await executors.call(steps.refuses, {}, CostMeter())
    assert not failed.value.retry


async def test_a_step_has_what_its_options_ask_of_ray(executors) -> None:
    had = await executors.call(steps.environment, {}, CostMeter())
    assert had == {"colour": "green", "CPU": "0.5", "shelf": "2"}


async def test_an_actor_keeps_its_state_until_it_dies(executors) -> None:
    process, first = await executors.call(steps.counts, {}, CostMeter())
    assert await executors.call(steps.counts, {}, CostMeter()) == [process, first + 1]
    with pytest.raises(StepFailed, match="Ray lost it: ActorDiedError") as failed:
        await executors.call(steps.breaks, {}, CostMeter())
    assert failed.value.retry
    after, calls = await executors.call(steps.counts, {}, CostMeter())
    assert after != process
    assert calls == 1


async def test_actors_end_with_their_places(nodes) -> None:
    async with Executors(ExecutorRules(ray_address=nodes.address)) as own:
        process, _ = await own.call(steps.counts, {}, CostMeter())
        assert alive(process)
    await wait_until(lambda: not alive(process))


async def test_ray_that_is_away_is_waited_for_and_charges_no_try() -> None:
    async with Executors(ExecutorRules(ray_address=f"127.0.0.1:{free_port()}")) as away:
        await away.prepare([steps.HARM, steps.BESIDE])
        assert list(away.unavailable) == ["harm"]
        assert "does not accept connections" in away.unavailable["harm"]
        ledger, claim = Ledger(), claim_of(steps.HARM, {"directory": ""})
        with pytest.raises(ExecutorUnavailable, match="Ray is away"):
            await run(claim, steps.HARM, {}, ledger, executors=away)
        assert ledger.end is None


async def test_a_run_is_handed_on_by_a_worker_that_stops_in_its_step(
    nodes, valkey, tmp_path
) -> None:
    # Longer than the three seconds after which Ray's own handler of SIGTERM ends its process.
    own = settings(nodes.address) | {"HEADSTART_DRAIN": "4"}
    async with (
        api(valkey.url, **own) as (_, address),
        worker(valkey.url, **own) as first,
        PrecomputeClient(address) as client,
    ):
        await client.start("held", "held", {"directory": str(tmp_path)})
        held = tmp_path / "held"
        await wait_until(lambda: held.exists() and held.read_text(), 60)
        step_process = int(held.read_text())
        first.send(signal.SIGTERM)
        assert await first.ended() == 0
        assert "held" in (await first.says("handed on.*|.*handed on"))[0]
        await wait_until(lambda: not alive(step_process))
        assert str((await client.get_results("held")).status) == "pending"
        (tmp_path / "go").touch()
        async with worker(valkey.url, **own):
            results = await client.get_results("held", wait=90)
            assert str(results.status) == "completed"


async def test_a_worker_serves_its_other_pipelines_while_ray_is_away_and_all_when_it_is_back(
    own_nodes, valkey, tmp_path
) -> None:
    own = settings(own_nodes.address)
    async with (
        api(valkey.url, **own) as (_, address),
        worker(valkey.url, **own) as working,  # before there is a Ray
        PrecomputeClient(address) as client,
    ):
        await working.says("waiting for Ray at .*does not accept connections")
        assert await readiness(working) == (
            503,
            "not ready: cannot run ray, held now, see the log\n",
        )
        await client.start("early", "ray", {})
        await client.start("beside-1", "beside", {})
        assert str((await client.get_results("beside-1", wait=30)).status) == "completed"

        await own_nodes.start()
        assert str((await client.get_results("early", wait=90)).status) == "completed"
        assert await readiness(working) == (200, "ready\n")

        await client.start("held", "held", {"directory": str(tmp_path)})
        held = tmp_path / "held"
        await wait_until(lambda: held.exists() and held.read_text(), 60)
        await own_nodes.kill()
        await working.says("held handed on: Ray was lost while it ran")
        await client.start("late", "ray", {})
        await client.start("beside-2", "beside", {})
        assert str((await client.get_results("beside-2", wait=30)).status) == "completed"
        assert (await readiness(working))[0] == 503

        (tmp_path / "go").touch()
        await own_nodes.start()
        for key in ("held", "late"):
            results = await client.get_results(key, wait=90)
            assert str(results.status) == "completed"
            assert {step.attempts for step in results.steps.values()} <= {1}
        assert await readiness(working) == (200, "ready\n")


async def pending_reason(client: PrecomputeClient, key: str) -> str:
    """Why no worker takes the run, once there is such a reason."""

    async def reason() -> str | None:
        return (await client.get_status(key)).pending_reason

    return str(await wait_until(reason, 60))


async def test_old_code_on_a_node_gives_no_value(nodes, valkey, tmp_path) -> None:
    new = weather(tmp_path / "new", "new")
    own = settings(nodes.address, "weather:PIPELINE", new)
    async with (
        api(valkey.url, **own) as (_, address),
        worker(valkey.url, **own) as working,
        PrecomputeClient(address) as client,
    ):
        await working.says(r"no node of Ray has the code of step weather: node \S+ .*other code")
        assert (await readiness(working))[0] == 503
        await client.start("today", "weather", {})
        assert (await pending_reason(client, "today")).startswith("no_worker")
        await nodes.start(new)  # beside the old one, as in a rolling update
        results = await client.get_results("today", wait=90)
        assert str(results.status) == "completed"
        assert results.artifact("weather", str) == "new"
        assert results.steps["weather"].attempts == 1


async def test_a_package_that_no_node_has_refuses_the_start(nodes, valkey, tmp_path) -> None:
    path = weather(tmp_path / "here", "here", "only_here")
    own = settings(nodes.address, "only_here:PIPELINE", path)
    async with headstart("worker", HEADSTART_REDIS_URL=valkey.url, **own) as process:
        assert await process.ended(90) == 2
        assert re.search(
            r"no node of Ray can run step weather: node \S+ .*cannot import only_here: "
            r"ModuleNotFoundError: No module named 'only_here'",
            process.output,
        )
    assert "only_here" not in sys.modules
