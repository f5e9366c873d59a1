"""Steps on a real Ray of this machine: what they give, and what becomes of those that do harm."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from headstart_service.engine.meter import Meter
from headstart_service.engine.places.places import PlaceRules, Places
from headstart_service.errors import StartupError, StepFailed
from tests.support import places_ray as steps
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places() -> AsyncIterator[Places]:
    async with Places(PlaceRules()) as made:
        await made.prepare([steps.RAY])
        yield made


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_step_runs_on_ray_and_tells_its_cpu_seconds(places) -> None:
    meter = Meter()
    pid = await places.call(steps.tells, {}, meter)
    assert pid != os.getpid()
    assert meter.cpu_seconds > 0.04


async def test_a_cancel_ends_the_task_on_ray(places, tmp_path) -> None:
    call = asyncio.create_task(places.call(steps.hangs, {"directory": str(tmp_path)}, Meter()))
    file = tmp_path / "hangs"
    await wait_until(lambda: file.exists() and file.read_text(), 25)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wait_until(lambda: ended(int(file.read_text())))


async def test_a_worker_of_ray_that_dies_fails_its_step_once(places, tmp_path) -> None:
    with pytest.raises(StepFailed, match="Ray lost it: WorkerCrashedError"):
        await places.call(steps.dies, {"directory": str(tmp_path)}, Meter())
    assert (tmp_path / "deaths").read_text() == "x"


async def test_what_a_step_raises_on_ray_is_told_as_elsewhere(places) -> None:
    with pytest.raises(Exception, match="ValueError: password=hunter2"):
        await places.call(steps.raises, {}, Meter())
    with pytest.raises(StepFailed, match="no such word") as failed:
        await places.call(steps.refuses, {}, Meter())
    assert not failed.value.retry


async def test_a_cluster_that_is_not_there_refuses_the_start(places) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    other = Places(PlaceRules(ray_address="ray://127.0.0.1:1"))
    with pytest.raises(StartupError, match="HEADSTART_RAY_ADDRESS: cannot connect to Ray"):
        await other.prepare([steps.RAY])
