"""Calls are spread over all servers by the documented service config, and outlive one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from tests.support.processes import ROOT
from tests.support.replicas import Replicas, target
from tests.support.requests import probe, results
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = (ROOT / "examples" / "service-config.json").read_text()
CALLERS = 100
"""So many calls are under way at any moment."""


@asynccontextmanager
async def spread_stub(address: str) -> AsyncIterator[pb_grpc.PrecomputeServiceAsyncStub]:
    """A stub as any caller could make it: gRPC and the documented service config, no more."""
    options = [("grpc.service_config", CONFIG), ("grpc.max_reconnect_backoff_ms", 1000)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield pb_grpc.PrecomputeServiceStub(channel)


async def served_by(service: pb_grpc.PrecomputeServiceAsyncStub) -> int:
    """The mark of the replica that answers."""
    return (await service.GetStats(pb.GetStatsRequest(), timeout=20)).max_cached


async def test_calls_are_spread_over_both_servers(replicas: Replicas):
    both = await replicas.two()
    async with spread_stub(target(*both)) as service:

        async def spread() -> bool:
            counted = Counter([await served_by(service) for _ in range(20)])
            return set(counted.values()) == {10} and len(counted) == 2

        await wait_until(spread)  # as soon as both are connected


async def test_a_killed_server_fails_no_call(replicas: Replicas, tmp_path):
    lost, left = await replicas.two()
    async with spread_stub(target(lost, left)) as service:
        counted: Counter[int] = Counter()

        async def calls() -> None:
            while lost.process.alive or counted["after"] < 5 * CALLERS:
                mark = await served_by(service)
                counted[mark] += 1
                counted["after"] += not lost.process.alive

        async def waits() -> pb.PrecomputeStatus.ValueType:
            request = results("balanced", 30)
            return (await service.GetResults(request, timeout=35)).status

        await service.StartPrecompute(probe("balanced", tmp_path))
        waiting = [asyncio.create_task(waits()) for _ in range(CALLERS)]
        calling = [asyncio.create_task(calls()) for _ in range(CALLERS)]
        await wait_until(lambda: min(counted[lost.mark], counted[left.mark]) > CALLERS)
        lost.process.kill()
        await asyncio.gather(*calling)
        (tmp_path / "go").touch()
        statuses = await asyncio.gather(*waiting)
    assert set(statuses) == {pb.PRECOMPUTE_STATUS_COMPLETED}
