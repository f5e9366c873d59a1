"""Ten times as much as can be computed, for a while: nothing accepted is lost, nothing ready is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, Service, api, health, stub, worker
from tests.support.refusals import refused_for
from tests.support.requests import chain, json_of, results
from tests.support.valkey import Valkey

pytestmark = pytest.mark.chaos

CONCURRENCY = 2
RUN = 0.6
"""Seconds that a run of `chain` takes at least."""
CAPACITY = CONCURRENCY / RUN
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_WORKER_CONCURRENCY": str(CONCURRENCY),
    "HEADSTART_WORKER_RUNS": str(CONCURRENCY),
    "HEADSTART_MAX_QUEUED": "10",
    "HEADSTART_MAX_WAITERS": "100",
}
SECONDS = 20
MEGABYTE = 1 << 20


@pytest.fixture
async def served(valkey: Valkey) -> AsyncIterator[tuple[Process, str, Service]]:
    async with AsyncExitStack() as stack:
        process, address = await stack.enter_async_context(api(valkey.url, **SETTINGS))
        await stack.enter_async_context(worker(valkey.url, **SETTINGS))
        service = await stack.enter_async_context(stub(address))
        yield process, address, service


async def completed(service: Service, number: int) -> None:
    """The run ends, with the right value."""
    answer = await service.GetResults(results(f"k{number}", 60))
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED, answer
    assert json_of(answer, "three") == (number + 1) * 2 + 3


class Load:
    """Calls of all kinds, and what came of them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.accepted: list[int] = [0]
        self.delays: list[float] = []
        self.reads: list[float] = []

    async def start(self, number: int) -> None:
        try:
            await self.service.StartPrecompute(chain(f"k{number}", number))
        except grpc.aio.AioRpcError as error:
            self.delays.append(refused_for(error))
        else:
            self.accepted.append(number)

    async def wait(self) -> None:
        """For the run that was accepted last; many more do than may."""
        try:
            await self.service.GetResults(results(f"k{self.accepted[-1]}", 5))
        except grpc.aio.AioRpcError as error:
            refused_for(error)

    async def read(self) -> None:
        """Read what is ready."""
        began = time.monotonic()
        await completed(self.service, 0)
        self.reads.append(time.monotonic() - began)


async def test_ten_times_the_capacity_for_a_while(served: tuple[Process, str, Service]):
    process, address, service = served
    await service.StartPrecompute(chain("k0", 0))
    await completed(service, 0)
    load, memory, number = Load(service), [], 0
    async with asyncio.TaskGroup() as group:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < SECONDS:
            for _ in range(int(elapsed * CAPACITY * 10) - number):
                number += 1
                group.create_task(load.start(number))
                for _ in range(10):
                    group.create_task(load.wait())
            group.create_task(load.read())
            assert await health(address) == "SERVING"
            memory.append(process.resident)
            await asyncio.sleep(0.05)  # the pace at which load comes
    for each in load.accepted:
        await completed(service, each)
    assert len(load.accepted) - 1 + len(load.delays) == number
    assert len(load.delays) > number / 2

    # The queue drains in three seconds; who is refused is told about that, once it was measured.
    settled = sorted(load.delays[len(load.delays) // 2 :])
    assert 0.5 < settled[len(settled) // 2] < 15
    half = len(memory) // 2
    assert max(memory[half:]) - max(memory[:half]) < 10 * MEGABYTE
    assert max(memory) < 200 * MEGABYTE
    median = sorted(load.reads)[len(load.reads) // 2]
    assert median < 1
    print(
        f"{number} starts, {len(load.accepted)} accepted, told {settled[0]:.1f} to "
        f"{settled[-1]:.1f} s, {max(memory) / MEGABYTE:.0f} MB, {len(load.reads)} ready reads, "
        f"half of them within {median * 1000:.1f} ms"
    )


async def test_callers_who_come_back_when_they_are_told_all_get_their_run(
    served: tuple[Process, str, Service],
):
    _, _, service = served
    refusals = []

    async def insist(number: int) -> None:
        while True:
            try:
                await service.StartPrecompute(chain(f"k{number}", number))
            except grpc.aio.AioRpcError as error:
                refusals.append(refused_for(error))
                await asyncio.sleep(refusals[-1])
            else:
                return

    callers = 40
    async with asyncio.timeout(callers / CAPACITY * 8), asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(insist(number))
    for number in range(callers):
        await completed(service, number)
    assert len(refusals) < callers * 20
    print(f"{len(refusals)} refusals for {callers} callers")
