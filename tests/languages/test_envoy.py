"""deploy/envoy/envoy.yaml, in front of two real API processes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from headstart import PrecomputeClient
from headstart.v1 import precompute_pb2 as pb
from tests.languages.tools import envoy
from tests.support.processes import ROOT, Process, Service, clean_environment, stub
from tests.support.replicas import Replica, Replicas
from tests.support.requests import noop, probe, results
from tests.support.valkey import free_port
from tests.support.waiting import PATIENT, wait_until

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]

CONFIG = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()
CALLERS = 50
LONGER_THAN_ENVOYS_DEFAULT = 16.0
"""Seconds. A route without a timeout of its own ends a call after 15."""


@asynccontextmanager
async def proxied(directory: Path, *servers: Replica) -> AsyncIterator[str]:
    """Envoy in front of two servers; gives its address once both get calls."""
    port, admin = free_port(), free_port()
    ports = {"50050": str(port), "9901": str(admin)}
    ports |= {str(50051 + i): server.port for i, server in enumerate(servers)}
    written = directory / "envoy.yaml"
    written.write_text(re.sub(r"(?<=port_value: )\d+", lambda found: ports.pop(found[0]), CONFIG))
    assert not ports, "the file names other ports than this test expects"
    process = Process(
        [envoy(), "-c", str(written), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"],
        clean_environment(),
    )
    try:
        address = f"127.0.0.1:{port}"
        async with stub(address) as service:

            async def both() -> bool:
                assert process.alive, process.tail
                try:
                    return len({await served_by(service) for _ in range(10)}) == 2
                except grpc.aio.AioRpcError:
                    return False

            await wait_until(both)
        yield address
    finally:
        process.stop()


async def served_by(service: Service) -> int:
    """The mark of the replica that answers."""
    return (await service.GetStats(pb.GetStatsRequest(), timeout=20)).max_cached


async def test_both_servers_serve_and_a_killed_one_fails_no_call(
    replicas: Replicas, tmp_path: Path
):
    lost, left = await replicas.two()
    async with proxied(tmp_path, lost, left) as address, stub(address) as service:
        counted: Counter[object] = Counter()

        async def calls() -> None:
            while lost.process.alive or counted["after"] < 5 * CALLERS:
                counted[await served_by(service)] += 1
                counted["after"] += not lost.process.alive

        async def waits() -> pb.PrecomputeStatus.ValueType:
            return (await service.GetResults(results("proxied", 30), timeout=35)).status

        # A client without any retries, so that what Envoy does not mend is seen.
        await service.StartPrecompute(probe("proxied", tmp_path))
        waiting = [asyncio.create_task(waits()) for _ in range(CALLERS)]
        calling = [asyncio.create_task(calls()) for _ in range(CALLERS)]
        await wait_until(lambda: min(counted[lost.mark], counted[left.mark]) > CALLERS)
        lost.process.kill()
        await asyncio.gather(*calling)
        (tmp_path / "go").touch()
        assert set(await asyncio.gather(*waiting)) == {pb.PRECOMPUTE_STATUS_COMPLETED}


async def test_waits_and_watches_last_longer_than_envoys_own_timeouts(
    replicas: Replicas, tmp_path: Path
):
    async with proxied(tmp_path, *await replicas.two()) as address:
        async with stub(address) as service, PrecomputeClient(address, timeout=PATIENT) as client:
            await service.StartPrecompute(probe("long", tmp_path))
            watched = []

            async def watch() -> None:
                stream = service.WatchResults(pb.WatchResultsRequest(key="long"))
                watched.extend([message.results async for message in stream])

            async def end() -> None:
                await asyncio.sleep(LONGER_THAN_ENVOYS_DEFAULT)
                (tmp_path / "go").touch()

            watching = asyncio.create_task(watch())
            ending = asyncio.create_task(end())
            got = await client.get_results("long", wait=60)
            await asyncio.gather(watching, ending)
    assert got.status.ended
    assert watched[-1].status == pb.PRECOMPUTE_STATUS_COMPLETED
    states = [run.steps["gated"].state for run in watched]
    assert pb.STEP_STATE_RUNNING in states[:-1]


async def test_a_callers_deadline_is_kept_and_partial_results_arrive(
    replicas: Replicas, tmp_path: Path
):
    async with proxied(tmp_path, *await replicas.two()) as address, stub(address) as service:
        await service.StartPrecompute(probe("partial", tmp_path))
        partial = await service.GetResults(results("partial", 30, "gated"), timeout=3)
        assert partial.steps["gated"].state in {pb.STEP_STATE_RUNNING, pb.STEP_STATE_PENDING}
        (tmp_path / "go").touch()


async def test_details_of_errors_pass(replicas: Replicas, tmp_path: Path):
    async with proxied(tmp_path, *await replicas.two()) as address, stub(address) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await service.StartPrecompute(noop("x" * 300))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "grpc-status-details-bin" in dict(refusal.value.trailing_metadata())
