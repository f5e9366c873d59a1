"""Somebody deletes indexes of the store under load: no run is lost, and all are listed again."""

from __future__ import annotations

import asyncio
import random

import pytest

from headstart_service.domain import Status
from tests.support.consistency import inconsistencies
from tests.support.load import Load
from tests.support.rig import FAULTS, rig
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

LANES = 5
"""So many services side by side: indexes are mended at most once a minute."""


async def test_status_sets_that_are_deleted_under_load(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random
):
    async def lane(number: int) -> None:
        valkey = Valkey(tmp_path_factory.mktemp("valkey"))
        await valkey.start()
        try:
            async with rig(valkey.url, workers=1) as made, valkey.client() as redis:
                load = Load(made.client, f"lane{number}")
                async with load.running(4, pause=0.2):
                    for fault in range(FAULTS // LANES):
                        await asyncio.sleep(chance.uniform(0.5, 1.5))
                        await redis.delete(*(f"headstart:{{0}}:status:{s}" for s in Status))
                        # The last mending may be of this minute: let the next be due.
                        if fault:
                            await redis.hdel("headstart:{0}:ledger", "mended")
                        await wait_until(lambda: _agree(redis), within=30)
                assert not load.verdict.bad, load.verdict.bad[:5]
                assert load.verdict.right > 0
            assert inconsistencies([valkey.url]) == []
        finally:
            await valkey.kill()

    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            group.create_task(lane(number))


async def _agree(redis: object) -> bool:
    """Whether as many runs stand in the sets of their statuses as are kept."""
    pipeline = redis.pipeline()  # type: ignore[attr-defined]
    for status in Status:
        pipeline.zcard(f"headstart:{{0}}:status:{status}")
    pipeline.zcard("headstart:{0}:expiry")
    *counts, kept = await pipeline.execute()
    return bool(kept) and sum(counts) == kept
