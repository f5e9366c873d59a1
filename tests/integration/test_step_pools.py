"""Steps of another pool than their pipeline's, between real processes of two pools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from headstart import FailureReason, PendingReason, PrecomputeClient, PrecomputeStatus
from headstart.v1 import precompute_pb2 as pb
from tests.support.commands import done_here
from tests.support.pool_pipelines import REFERENCE
from tests.support.processes import api, headstart, stub, worker
from tests.support.scrape import metrics_of, value
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCE,
    "HEADSTART_LEASE": "1",
}
CPU, GPU = ({**SETTINGS, "HEADSTART_POOLS": pool} for pool in ("default", "gpu"))


def began(directory: Path, step: str) -> Sequence[int]:
    """The processes that began a step, in order."""
    file = directory / "began"
    lines = file.read_text().splitlines() if file.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(f"{step} ")]


def go(directory: Path, *steps: str) -> None:
    for step in steps:
        (directory / step).touch()


async def test_each_step_runs_in_its_pool_at_the_same_time_and_counts_once(
    valkey: Valkey, tmp_path: Path
):
    async with (
        api(valkey.url, **SETTINGS) as (server, address),
        worker(valkey.url, **CPU) as cpu,
        PrecomputeClient(address) as client,
        stub(address) as service,
    ):
        await client.start("page", "mixed", {"directory": str(tmp_path)})
        await wait_until(lambda: began(tmp_path, "speak"))

        # No worker of the pool: the run, its list, the doctor and the metrics name it.
        async def lacking() -> list[pb.UnservedStep]:
            status = await service.GetStatus(pb.GetStatusRequest(key="page"))
            assert status.status == pb.PRECOMPUTE_STATUS_IN_PROGRESS
            return list(status.unserved_steps)

        await wait_until(lacking)
        reason = pb.PENDING_REASON_NO_WORKER_FOR_POOL
        assert await lacking() == [pb.UnservedStep(step="render", pool="gpu", reason=reason)]
        results = await client.get_results("page")
        [found] = results.unserved_steps
        assert (found.step, found.pool) == ("render", "gpu")
        assert found.reason is PendingReason.NO_WORKER_FOR_POOL
        shown = await asyncio.to_thread(done_here, "doctor", "--address", address)
        assert "no worker serves the pool gpu: 1 step of a run waits" in shown.out
        figures = await metrics_of(server)
        assert value(figures, "headstart_pool_queued_runs", pool="gpu") == 1

        async with worker(valkey.url, **GPU) as gpu:
            await wait_until(lambda: began(tmp_path, "render"))
            assert began(tmp_path, "speak") == [cpu.pid], "both go on at the same time"
            assert not await lacking()
            stats = await service.GetStats(pb.GetStatsRequest())
            assert stats.pools["gpu"] == pb.Pool(running=1, workers=1)
            assert stats.pools["default"] == pb.Pool(running=1, workers=1)
            assert stats.status_counts == {"in_progress": 1}
            listed = await service.ListPrecomputes(pb.ListPrecomputesRequest())
            assert [each.key for each in listed.precomputes] == ["page"]
            go(tmp_path, "render", "speak")
            done = await client.get_results("page", wait=30)
            assert done.status is PrecomputeStatus.COMPLETED
            assert done.artifact("whole", list[int]) == [7, gpu.pid, cpu.pid, cpu.pid]

            stats = await service.GetStats(pb.GetStatsRequest())
            assert stats.status_counts == {"completed": 1}
            assert stats.ledger.starts == 1
            assert sum(each.steps for each in stats.ledger.fates) == 4
            assert sum(each.runs for each in stats.ledger.fates) == 1

            # The same inputs are reused: the value of the other pool is today's, too.
            again = await client.start("page", "mixed", {"directory": str(tmp_path)})
            assert again.outcome.value == "reused"


async def test_a_worker_of_both_pools_runs_the_step_itself(valkey: Valkey, tmp_path: Path):
    go(tmp_path, "render", "speak")
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS) as both,
        PrecomputeClient(address) as client,
    ):
        await client.start("page", "mixed", {"directory": str(tmp_path)})
        done = await client.get_results("page", wait=30)
        assert done.artifact("whole", list[int]) == [7, both.pid, both.pid, both.pid]


async def test_killed_workers_of_either_side_lose_no_step(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        PrecomputeClient(address) as client,
    ):
        async with worker(valkey.url, **CPU) as cpu, worker(valkey.url, **GPU) as gpu:
            await client.start("page", "mixed", {"directory": str(tmp_path)})
            await wait_until(lambda: began(tmp_path, "render") and began(tmp_path, "speak"))
            cpu.kill()
            async with worker(valkey.url, **CPU) as second:
                await wait_until(lambda: len(began(tmp_path, "speak")) == 2, within=30)
                assert began(tmp_path, "render") == [gpu.pid], "the same step run goes on"
                gpu.kill()
                async with worker(valkey.url, **GPU) as other:
                    await wait_until(lambda: len(began(tmp_path, "render")) == 2, within=30)
                    # Its result is kept while the run has no worker.
                    second.kill()
                    go(tmp_path, "render", "speak")
                    async with worker(valkey.url, **CPU) as third:
                        done = await client.get_results("page", wait=30)
                        assert done.artifact("whole", list[int])[:2] == [7, other.pid]
                        assert len(began(tmp_path, "render")) == 2
                        assert began(tmp_path, "seed") == [cpu.pid]
                        assert third.pid in done.artifact("whole", list[int])


async def test_a_cancelled_run_stops_its_step_and_a_failure_of_it_arrives(
    valkey: Valkey, tmp_path: Path
):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU),
        worker(valkey.url, **GPU) as gpu,
        PrecomputeClient(address) as client,
        stub(address) as service,
    ):
        await client.start("page", "mixed", {"directory": str(tmp_path)})
        await wait_until(lambda: began(tmp_path, "render") and began(tmp_path, "speak"))
        await client.cancel("page")

        async def idle() -> bool:
            stats = await service.GetStats(pb.GetStatsRequest())
            return not (stats.pools["gpu"].running or stats.pools["gpu"].queued)

        await wait_until(idle)
        await wait_until(lambda: "page step render" in gpu.output and "stopped" in gpu.output)

        await client.start("bad", "mixed", {"directory": str(tmp_path), "fails": 1})
        done = await client.get_results("bad", wait=30)
        assert done.status is PrecomputeStatus.FAILED
        assert done.failure_reason is FailureReason.STEP_FAILED
        assert done.error == "render: no card"
        assert done.steps["render"].failure_reason is FailureReason.STEP_FAILED


async def test_what_no_pipeline_and_no_step_names_is_refused(valkey: Valkey):
    settings = SETTINGS | {"HEADSTART_POOLS": "fpga", "HEADSTART_REDIS_URL": valkey.url}
    async with headstart("worker", **settings) as process:
        assert await process.ended() != 0
        assert "no pipeline here names fpga; they name: default, gpu" in process.output
