"""A store of real processes moves between numbers of partitions, and the moves are killed."""

from __future__ import annotations

import asyncio
import random

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.layout import Layout
from tests.support.commands import run
from tests.support.consistency import inconsistencies
from tests.support.layouts import answers, listed, of, served
from tests.support.processes import run_headstart, worker
from tests.support.requests import noop, results
from tests.support.rig import FAULTS
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

FINISHED, PENDING = 300, 12
CHECK_EVERY = 5


async def _layout(valkey: Valkey) -> bytes | None:
    async with valkey.client() as client:
        found: bytes | None = await client.get(PartitionKeys(0).layout)
        return found


async def _begun(valkey: Valkey) -> bool:
    return b"moving-to" in (await _layout(valkey) or b"")


async def test_moves_from_3_to_6_and_back_that_are_killed_lose_nothing(
    valkey: Valkey, chance: random.Random
) -> None:
    finished = [f"key-{i}" for i in range(FINISHED)]
    pending = [f"later-{i}" for i in range(PENDING)]
    url = {"HEADSTART_REDIS_URL": valkey.url}
    async with served(valkey.url, 3) as service:
        async with worker(valkey.url, **of(3)):
            for key in finished:
                await service.StartPrecompute(noop(key), timeout=20)
            for key in finished:
                await service.GetResults(results(key, 30, "nothing"), timeout=40)
        for key in pending:
            await service.StartPrecompute(noop(key, value=1), timeout=20)
        before = await answers(service, finished)
        ledger = (await service.GetStats(pb.GetStatsRequest(), timeout=20)).ledger
    count = 3
    cut = 0
    for number in range(FAULTS):
        target = 9 - count
        mover = run_headstart("repartition", "--to", str(target), **url)
        try:
            await wait_until(lambda mover=mover: not mover.alive or _begun(valkey))
            await asyncio.sleep(chance.uniform(0, 0.1))
            mover.kill()
        finally:
            mover.stop()
        cut += await _layout(valkey) == str(Layout(count, target=target)).encode()
        moved = await asyncio.to_thread(run, "repartition", "--to", str(target), **url)
        assert moved.code == 0, moved.err
        count = target
        if number % CHECK_EVERY:
            continue
        async with served(valkey.url, count) as service:
            assert await answers(service, finished) == before
            assert sorted(await listed(service)) == sorted([*finished, *pending])
            after = (await service.GetStats(pb.GetStatsRequest(), timeout=20)).ledger
            assert (after.starts, after.fates) == (ledger.starts, ledger.fates)
        assert inconsistencies([valkey.url], count) == []
    assert cut, "no move was killed on its way"
    print(f"{cut} of {FAULTS} moves were killed on their way")
    async with served(valkey.url, count) as service, worker(valkey.url, **of(count)):
        for key in pending:
            answer = await service.GetResults(results(key, 30, "nothing"), timeout=40)
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
