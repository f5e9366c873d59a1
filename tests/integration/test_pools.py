"""Pools between processes: who runs what, what is said while nobody does, and what is refused."""

from __future__ import annotations

import asyncio
import re

import pytest

from headstart import PendingReason, PrecomputeClient, PrecomputeStatus
from headstart.v1 import precompute_pb2 as pb
from tests.support.commands import done_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import api, headstart, stub, worker
from tests.support.scrape import metrics_of, value
from tests.support.valkey import Valkey

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": f"{REFERENCES},tests.support.pipelines:ON_GPU",
    "HEADSTART_LEASE": "1",
}


async def test_a_run_waits_for_a_worker_of_its_pool_and_says_so(valkey: Valkey):
    async with (
        api(valkey.url, **SETTINGS) as (server, address),
        PrecomputeClient(address) as client,
        stub(address) as service,
    ):
        async with worker(valkey.url, HEADSTART_POOLS="default", **SETTINGS):
            await client.start("cpu", "noop", {})
            await client.start("gpu", "on-gpu", {})
            done = await client.get_results("cpu", wait=30)
            assert done.status is PrecomputeStatus.COMPLETED
            status = await client.get_status("gpu")
            assert status.status is PrecomputeStatus.PENDING
            assert status.pending_reason is PendingReason.NO_WORKER_FOR_POOL

            stats = await service.GetStats(pb.GetStatsRequest())
            waits = stats.pools["gpu"].oldest_wait
            assert stats.pools["gpu"] == pb.Pool(queued=1, oldest_wait=waits)
            assert stats.pools["default"].workers == 1

            found = await asyncio.to_thread(done_here, "doctor", "--address", address)
            assert "no worker serves the pool gpu: 1 run waits" in found.out
            figures = await metrics_of(server)
            assert value(figures, "headstart_pool_queued_runs", pool="gpu") == 1
            assert value(figures, "headstart_pool_workers", pool="default") == 1

        async with worker(valkey.url, HEADSTART_POOLS="gpu", **SETTINGS):
            done = await client.get_results("gpu", wait=30)
            assert done.status is PrecomputeStatus.COMPLETED
            keys = [f"gpu-{number}" for number in range(50)]
            for key in keys:
                await client.start(key, "on-gpu", {})
            for key in keys:
                done = await client.get_results(key, wait=30)
                assert done.status is PrecomputeStatus.COMPLETED
            await client.start("later", "noop", {})
            status = await client.get_status("later")
            assert status.pending_reason is PendingReason.NO_WORKER_FOR_POOL

        async with worker(valkey.url, **SETTINGS):
            await client.start("both", "on-gpu", {})
            for key in ("later", "both"):
                done = await client.get_results(key, wait=30)
                assert done.status is PrecomputeStatus.COMPLETED


@pytest.mark.chaos
async def test_what_a_killed_worker_leaves_goes_to_another_of_its_pool(valkey: Valkey):
    settings = SETTINGS | {"HEADSTART_POOLS": "gpu"}
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **settings) as first,
        PrecomputeClient(address) as client,
    ):
        keys = [str(number) for number in range(30)]
        for key in keys:
            await client.start(key, "on-gpu", {})
        first.kill()
        async with worker(valkey.url, **settings):
            for key in keys:
                done = await client.get_results(key, wait=30)
                assert done.status is PrecomputeStatus.COMPLETED


async def test_a_pool_that_no_pipeline_names_and_a_malformed_one_are_refused(valkey: Valkey):
    for pools, said in (
        ("gpu,fpga", r"HEADSTART_POOLS: no pipeline here names fpga; they name: default, gpu"),
        ("GPU", r"HEADSTART_POOLS.*must be.*a-z, 0-9 and '-'"),
    ):
        settings = SETTINGS | {"HEADSTART_POOLS": pools, "HEADSTART_REDIS_URL": valkey.url}
        async with headstart("worker", **settings) as process:
            assert await process.ended() != 0
            assert re.search(said, process.output), process.output
