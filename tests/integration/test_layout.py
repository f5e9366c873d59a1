"""Real processes with different numbers of partitions on one Redis, and a store that is moved."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from redis import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.layout import FORMAT, Layout
from tests.support.commands import done_here
from tests.support.deployments import cluster
from tests.support.layouts import answers, listed, of, served
from tests.support.processes import (
    api,
    headstart,
    health,
    stub,
    worker,
)
from tests.support.requests import noop, results
from tests.support.scrape import asked
from tests.support.valkey import Valkey

THREE, SIX = of(3), of(6)
DIFFERENT = "store has 3 partitions, this process has HEADSTART_PARTITIONS=6"
CURE = "headstart repartition --to 6"


async def _refused(call: grpc.aio.UnaryUnaryCall[pb.GetResultsResponse, object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return caught.value.details() or ""


async def test_processes_with_another_number_of_partitions_are_not_ready_and_give_the_cure(
    valkey: Valkey,
) -> None:
    own = {"HEADSTART_REDIS_URL": valkey.url, "HEADSTART_HTTP_PORT": "0", **SIX}
    async with (
        served(valkey.url, 3) as three,
        headstart("serve", HEADSTART_GRPC_PORT="0", **own) as other,
        headstart("worker", **own) as idle,
    ):
        address = (await other.says(r"gRPC on (\S+), HTTP on"))[1]
        for process in (other, idle):
            await process.says(f"not ready: the {DIFFERENT}")
            answer = await asked(process, "readyz")
            assert answer.status == 503
            assert DIFFERENT in answer.text
            assert CURE in answer.text
        assert await health(address) == "NOT_SERVING"
        keys = [f"key-{i}" for i in range(60)]
        async with stub(address) as six:
            said = await _refused(six.StartPrecompute(noop("elsewhere"), timeout=20))
            assert DIFFERENT in said
            assert CURE in said
            for key in keys:
                await three.StartPrecompute(noop(key), timeout=20)
            for key in keys:
                assert DIFFERENT in await _refused(six.GetResults(results(key), timeout=20))
        assert sorted(await listed(three)) == sorted(keys)
        assert "takes jobs" not in idle.output
        checked, local, remote = await asyncio.gather(
            asyncio.to_thread(done_here, "check-config", **own),
            asyncio.to_thread(done_here, "doctor", "--local-only", **own),
            asyncio.to_thread(done_here, "doctor", "--address", address),
        )
        assert (checked.code, local.code, remote.code) == (2, 1, 1)
        for text in (checked.err, local.out, remote.out):
            assert DIFFERENT in text
            assert CURE in text
        moved = await asyncio.to_thread(done_here, "repartition", "--to", "6", **own)
        assert moved.code == 1
        assert "1 processes use the store: api " in moved.err
        assert await listed(three)


async def test_a_live_process_that_finds_another_layout_serves_no_old_answer(
    valkey: Valkey,
) -> None:
    async with (
        api(valkey.url, **THREE) as (process, address),
        worker(valkey.url, **THREE) as working,
        stub(address) as service,
    ):
        await service.StartPrecompute(noop("key"), timeout=20)
        await service.GetResults(results("key", 20, "nothing"), timeout=30)
        await service.GetResults(results("key"), timeout=20)  # from the process's own memory now
        async with valkey.client() as client:
            for partition in range(3):
                await client.set(PartitionKeys(partition).layout, str(Layout(6)))
            assert await working.ended() == 2
            assert "store has 6 partitions" in working.output
            await process.says("not serving: the store has 6 partitions")
            assert "store has 6" in await _refused(service.GetResults(results("key"), timeout=20))
            assert (await asked(process, "readyz")).status == 503
            for partition in range(3):
                await client.set(PartitionKeys(partition).layout, str(Layout(3)))
        await process.says("(?s)not serving: .* serving")
        await service.GetResults(results("key"), timeout=20)


async def test_a_store_moves_by_command_and_an_empty_one_by_itself(valkey: Valkey) -> None:
    keys = [f"key-{i}" for i in range(20)]
    async with served(valkey.url, 6) as service:
        for key in keys:
            await service.StartPrecompute(noop(key), timeout=20)
        before = await answers(service, keys)
        page = await service.ListPrecomputes(pb.ListPrecomputesRequest(page_size=9), timeout=20)
    moved = await asyncio.to_thread(
        done_here, "repartition", "--to", "3", HEADSTART_REDIS_URL=valkey.url
    )
    assert (moved.code, moved.err) == (0, "")
    assert "partitions: 3 now; runs: 20 kept, " in moved.out
    async with served(valkey.url, 3) as service:
        assert await answers(service, keys) == before
        assert sorted(await listed(service)) == sorted(keys)
        with pytest.raises(grpc.aio.AioRpcError, match="of a store with 6 partitions, now it has"):
            await service.ListPrecomputes(
                pb.ListPrecomputesRequest(page_token=page.next_page_token), timeout=20
            )
        for key in keys:
            await service.CancelPrecompute(pb.CancelPrecomputeRequest(key=key), timeout=20)
    async with valkey.client() as client:
        for partition in range(3):
            for member in await client.zrange(PartitionKeys(partition).expiry, 0, -1):
                await client.zadd(PartitionKeys(partition).expiry, {member: 1})
    async with served(valkey.url, 6) as service:
        assert await listed(service) == []


async def test_in_a_cluster_every_master_has_partitions_though_no_number_is_set(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path) as deployment:
        async with api(deployment.url):
            for url in deployment.masters:
                with Redis.from_url(url, protocol=2) as client:
                    layouts = {client.get(key) for key in client.scan_iter("*:layout")}
                assert layouts == {b"format=%d partitions=12" % FORMAT}
        own = {"HEADSTART_REDIS_URL": deployment.url, "HEADSTART_PARTITIONS": "3"}
        checked = await asyncio.to_thread(done_here, "check-config", **own)
        assert "set HEADSTART_PARTITIONS=12" in checked.err
