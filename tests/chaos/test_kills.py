"""Runs survive kill -9, again and again, at random moments: none lost, none wrong."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import grpc
import pytest

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES
from tests.support.processes import Service, api, run_headstart, stub, worker
from tests.support.requests import chain, results
from tests.support.valkey import Valkey

pytestmark = pytest.mark.chaos

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_LEASE": "1",
    "HEADSTART_WORKER_CONCURRENCY": "8",
}
KILLS = 20


async def start(service: Service, number: int) -> None:
    await service.StartPrecompute(chain(f"k{number}", number))


async def check(service: Service, numbers: range) -> None:
    """Each of these runs has ended, with the right value of every step."""
    for number in numbers:
        answer = await service.GetResults(results(f"k{number}", 60))
        assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED, answer
        values = {name: a.json.number_value for name, a in answer.custom.artifacts.items()}
        one = number + 1
        assert values == {"one": one, "two": one * 2, "three": one * 2 + 3}


async def check_nothing_else_is_left(service: Service, count: int) -> None:
    stats = await service.GetStats(pb.GetStatsRequest())
    assert dict(stats.status_counts) == {"completed": count}
    assert stats.queued_jobs == 0


async def test_twenty_killed_workers_lose_no_run(valkey: Valkey):
    generator = random.Random(1)
    environment = SETTINGS | {"HEADSTART_REDIS_URL": valkey.url, "HEADSTART_HTTP_PORT": "0"}
    async with api(valkey.url, **SETTINGS) as (_, address), stub(address) as service:
        workers = [run_headstart("worker", **environment) for _ in range(2)]
        try:
            for kill in range(KILLS):
                victim = workers.pop(0)
                await victim.says("headstart worker ready")
                numbers = range(kill * 5, kill * 5 + 5)
                for number in numbers:
                    await start(service, number)
                await asyncio.sleep(generator.uniform(0, 0.7))  # the moment of the kill is the test
                victim.kill()
                victim.stop()
                workers.append(run_headstart("worker", **environment))
                # Before the next kill: a run that loses three workers is given up, as it should.
                await check(service, numbers)
            await check_nothing_else_is_left(service, KILLS * 5)
        finally:
            for process in workers:
                process.stop()


async def test_a_killed_and_restarted_valkey_loses_no_run(valkey: Valkey):
    generator = random.Random(2)
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(api(valkey.url, **SETTINGS))
        service = await stack.enter_async_context(stub(address))
        for _ in range(2):
            await stack.enter_async_context(worker(valkey.url, **SETTINGS))
        for round_ in range(5):
            for number in range(round_ * 10, round_ * 10 + 10):
                await start(service, number)
            await asyncio.sleep(generator.uniform(0, 0.6))  # the moment of the kill is the test
            await valkey.kill()
            await valkey.start()
            await _serves_again(service)
            await check(service, range(round_ * 10, round_ * 10 + 10))
        await check_nothing_else_is_left(service, 50)


async def _serves_again(service: Service) -> None:
    for _ in range(200):
        try:
            await service.GetStats(pb.GetStatsRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the API did not notice that Valkey is back")
