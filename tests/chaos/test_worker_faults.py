"""Workers are killed, stopped and run out of memory: no run is lost, none is wrong."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from headstart import PrecomputeClient, PrecomputeStatus, Status
from headstart_service.base import exit_codes
from tests.support.consistency import inconsistencies
from tests.support.load import Load
from tests.support.pipelines import began
from tests.support.processes import api
from tests.support.rig import FAULTS, SETTINGS, Fleet, Rig, rig
from tests.support.valkey import Valkey, monitored
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

STATES = ("pending", "one", "two", "three", "completed", "draining")
"""What a run is doing when its worker dies: `one` to `three` are the steps of `chain`."""


def _is_in(status: Status, state: str) -> bool:
    if status.status is PrecomputeStatus.COMPLETED or state == "pending":
        return True  # too late for any other
    return state in status.steps and str(status.steps[state]) == "running"


async def test_a_worker_killed_in_any_state_of_a_run_loses_nothing(
    valkey: Valkey, chance: random.Random
):
    fleet = Fleet(valkey.url, 2, HEADSTART_DRAIN="0.05")
    async with api(valkey.url, **SETTINGS) as (_, address), PrecomputeClient(address) as client:
        async with fleet.working():
            load = Load(client, "killed")
            for kill in range(FAULTS + 4):
                state = STATES[kill % len(STATES)]
                numbers = range(kill * 6, kill * 6 + 6)
                victim = fleet.workers[kill % 2]
                await victim.says("headstart worker ready")
                seen = [asyncio.create_task(load.see_to_end(number)) for number in numbers]
                await _reach(client, f"killed-{numbers[0]}", state)
                if state == "draining":
                    await asyncio.sleep(chance.uniform(0, 0.3))
                    victim.send(signal.SIGTERM)
                await asyncio.sleep(chance.uniform(0, 0.15))  # the moment of the kill is the test
                victim.kill()
                # Before the next: a run that loses three workers is given up, as it should.
                await asyncio.gather(*seen)
            print(load.verdict)
        assert not load.verdict.bad, load.verdict.bad
        assert load.verdict.right == (FAULTS + 4) * 6
        stats = await client.get_stats()
    assert stats.queued_jobs == 0
    assert inconsistencies([valkey.url]) == []


async def _reach(client: PrecomputeClient, key: str, state: str) -> None:
    async def reached() -> bool:
        pages = [run async for run in client.list()]
        return any(run.key == key for run in pages) and _is_in(await client.get_status(key), state)

    if state not in ("pending", "draining"):
        await wait_until(reached)


async def test_a_stopped_workers_late_writes_are_refused(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    late = 0
    async with rig(valkey.url) as made, monitored(valkey.port) as commands:
        for stop in range(FAULTS):
            directory = tmp_path / str(stop)
            directory.mkdir()
            await _stop_one(made, f"stopped-{stop}", directory, chance)
            # The one that its heir sent was kept: the result is his, and stays so.
            late += sum(_is_last_commit(line, f"stopped-{stop}") for line in commands) - 1
    print(f"{late} late commits of {FAULTS} stopped workers refused; the rest knew sooner")
    assert late > 0
    assert inconsistencies([valkey.url]) == []


def _is_last_commit(line: bytes, key: str) -> bool:
    mine = f"default:{key}".encode() + b'"' in line and b'"s:witness" "C' in line
    return mine and b" lua]" not in line  # what a script does with it is shown, too


async def _stop_one(made: Rig, key: str, directory: Path, chance: random.Random) -> None:
    """Stop the worker of a run, have another take over, and continue the first."""
    await made.client.start(key, "witness", {"directory": str(directory)})
    await wait_until(lambda: _holders(directory))
    [sleeper] = [each for each in made.workers if each.pid == _holders(directory)[0]]
    sleeper.send(signal.SIGSTOP)
    try:
        await wait_until(lambda: len(_holders(directory)) == 2)
        (directory / "go").touch()
        if chance.random() < 0.5:  # else it may write while the other still works on it
            await made.client.get_results(key, wait=30)
    finally:
        sleeper.send(signal.SIGCONT)
    results = await made.client.get_results(key, wait=30)
    heir = _holders(directory)[1]
    assert heir != sleeper.pid
    assert results.status is PrecomputeStatus.COMPLETED
    assert results.custom == {"first": 1, "witness": heir}
    await wait_until(lambda: f"{key} revision 1 attempt 1 stopped" in sleeper.output)
    assert (await made.client.get_results(key)).custom == results.custom


def _holders(directory: Path) -> list[int]:
    """The processes that began the last step, in order."""
    return [int(line.split()[1]) for line in began(directory) if line.startswith("gated ")]


async def test_a_worker_that_runs_out_of_memory_loses_nothing(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    fleet = Fleet(valkey.url, 2)
    async with api(valkey.url, **SETTINGS) as (_, address), PrecomputeClient(address) as client:
        load = Load(client, "beside")
        async with fleet.working(), load.running(4, pause=0.2):
            for death in range(FAULTS):
                directory = tmp_path / str(death)
                directory.mkdir()
                key = f"mortal-{death}"
                await asyncio.sleep(chance.uniform(0, 0.3))
                await client.start(key, "mortal", {"directory": str(directory), "deaths": 1})
                results = await client.get_results(key, wait=60)
                assert results.custom == {"first": 1, "mortal": 10}
                assert sum(line.startswith("mortal ") for line in began(directory)) == 2
        assert fleet.deaths == FAULTS
    assert not load.verdict.bad, load.verdict.bad
    assert inconsistencies([valkey.url]) == []


async def test_a_step_that_always_kills_its_worker_fails_and_harms_no_other_run(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    poisons = FAULTS // 3 + 1  # each kills three workers
    fleet = Fleet(valkey.url, 3)
    settings = SETTINGS | {"HEADSTART_FAILURE_TTL": "600"}
    async with api(valkey.url, **settings) as (_, address), PrecomputeClient(address) as client:
        load = Load(client, "innocent")
        async with fleet.working(), load.running(6, pause=0.1):
            for poison in range(poisons):
                directory = tmp_path / str(poison)
                directory.mkdir()
                key = f"poison-{poison}"
                await asyncio.sleep(chance.uniform(0, 0.3))
                await client.start(key, "mortal", {"directory": str(directory), "deaths": 99})
                results = await client.get_results(key, wait=60)
                assert (results.status, results.error) == (
                    PrecomputeStatus.FAILED,
                    "worker lost: in each try it ended, was blocked or lost Redis",
                )
                assert sum(line.startswith("mortal ") for line in began(directory)) == 3
        assert fleet.deaths == 3 * poisons
    assert not load.verdict.bad, load.verdict.bad


async def test_a_step_that_always_blocks_its_worker_fails_and_harms_no_other_run(
    valkey: Valkey, tmp_path: Path, chance: random.Random
):
    runs = FAULTS // 3 + 1  # each blocks three workers
    settings = SETTINGS | {
        "HEADSTART_FAILURE_TTL": "600",
        "HEADSTART_PIPELINES": f"{SETTINGS['HEADSTART_PIPELINES']},tests.support.executors:HANG",
        "HEADSTART_BLOCK_LIMIT": "0.3",
        "HEADSTART_HANG_LIMIT": "1",
    }
    fleet = Fleet(valkey.url, 3, **settings)
    async with api(valkey.url, **settings) as (_, address), PrecomputeClient(address) as client:
        load = Load(client, "neighbour")
        async with fleet.working(), load.running(6, pause=0.1):
            for number in range(runs):
                kind = ("event", "result", "callback", "task", "lock")[number % 5]
                directory = tmp_path / str(number)
                directory.mkdir()
                key = f"still-{number}"
                await asyncio.sleep(chance.uniform(0, 0.3))
                inputs = {"directory": str(directory), "kind": kind, "times": 99}
                await client.start(key, "hang", inputs)
                results = await client.get_results(key, wait=60)
                assert (results.status, results.error) == (
                    PrecomputeStatus.FAILED,
                    "worker lost: in each try it ended, was blocked or lost Redis",
                )
                assert len((directory / f"tries-{kind}").read_text().splitlines()) == 3
        assert fleet.deaths == 3 * runs
        print(load.verdict)
    assert not load.verdict.bad, load.verdict.bad
    assert inconsistencies([valkey.url]) == []


async def test_a_worker_whose_thread_never_ends_ends_all_the_same(valkey: Valkey, tmp_path: Path):
    settings = SETTINGS | {"HEADSTART_PIPELINES": "tests.support.executors:HANG"}
    settings |= {"HEADSTART_DRAIN": "0.5"}
    async with rig(valkey.url, 1, **settings) as made:
        inputs = {"directory": str(tmp_path), "kind": "thread", "times": 99}
        await made.client.start("spins", "hang", inputs)
        await wait_until((tmp_path / "tries-thread").exists)
        [spinning] = made.workers
        spinning.send(signal.SIGTERM)
        assert await spinning.ended(within=60) == exit_codes.BLOCKED
        assert "in _spin" in spinning.output
