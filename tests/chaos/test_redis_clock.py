"""Redis' clock is set back an hour, again and again, while workers are killed: no run waits for it."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from headstart import PrecomputeClient, PrecomputeStatus
from tests.support.clock import HOUR, Clock
from tests.support.consistency import inconsistencies
from tests.support.pipelines import began
from tests.support.processes import api
from tests.support.rig import FAULTS, SETTINGS, Fleet
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.chaos

LANES = 4
"""So many services are broken side by side, because one fault takes seconds."""
BOUND = 50.0
"""Seconds after which a lost run has ended. A sweep takes five, a lease 1.5, a busy machine more."""


async def test_a_clock_that_is_set_back_an_hour_delays_no_lost_run(
    tmp_path: Path, chance: random.Random
):
    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            directory = tmp_path / str(number)
            directory.mkdir()
            group.create_task(_lane(directory, chance))


async def _lane(directory: Path, chance: random.Random) -> None:
    clock = Clock(directory)
    valkey = Valkey(directory, clock.environment)
    await valkey.start()
    try:
        fleet = Fleet(valkey.url, 2)
        async with (
            api(valkey.url, **SETTINGS) as (_, address),
            PrecomputeClient(address, timeout=PATIENT) as client,
        ):
            async with fleet.working():
                for fault in range(FAULTS // LANES):
                    place = directory / f"run{fault}"
                    place.mkdir()
                    key, value = f"k{fault}", {"directory": str(place), "value": fault}
                    await client.start(key, "probe", value)
                    holder = await wait_until(lambda place=place: _holder(place))
                    [victim] = [each for each in fleet.workers if each.pid == holder]
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    clock.set(-HOUR * (fault + 1))
                    victim.kill()
                    (place / "go").touch()
                    began_at = time.monotonic()
                    results = await client.get_results(key, wait=BOUND)
                    assert results.status is PrecomputeStatus.COMPLETED, (results, fault)
                    print(f"lost run ended after {time.monotonic() - began_at:.1f} s")
        assert inconsistencies([valkey.url]) == []
    finally:
        await valkey.kill()


def _holder(place: Path) -> int:
    """The process that computes the run's second step; 0 before it does."""
    pids = [line.split()[1] for line in began(place) if line.startswith("gated ")]
    return int(pids[0]) if pids else 0
