"""Redis refuses everybody for two seconds under load: no run is lost, and none needs a second try."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from redis.asyncio import Redis

from headstart_service.store.records import NAMES
from tests.support.consistency import inconsistencies
from tests.support.deployments import least_rights
from tests.support.load import Load, serves
from tests.support.redis_faults import another_password, busy
from tests.support.rig import FAULTS, rig
from tests.support.valkey import Valkey

pytestmark = pytest.mark.chaos

SECONDS = 2.0
"""How long Redis refuses: shorter than a lease and than a worker's patience."""
TRIES = NAMES.index("tries")
LANES = 2
"""So many services are refused side by side. More would not fit: a busy Redis takes a whole core."""
CALLERS = 6
Fault = Callable[[Redis], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("fault", [busy, another_password])
async def test_a_redis_that_refuses_for_two_seconds_costs_no_try(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, fault: Fault
):
    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            valkey = Valkey(tmp_path_factory.mktemp("valkey"))
            group.create_task(_lane(valkey, f"{fault.__name__}{number}", chance, fault))


async def _lane(valkey: Valkey, name: str, chance: random.Random, fault: Fault) -> None:
    await valkey.start()
    operator = Redis(host="127.0.0.1", port=valkey.port, protocol=2, socket_timeout=None)
    try:
        async with operator as admin:
            rules = " ".join(least_rights("headstart"))
            await admin.execute_command(f"ACL SETUSER headstart on >s3cret {rules}")
            url = valkey.url.replace("//", "//headstart:s3cret@")
            async with rig(url, workers=1, HEADSTART_LEASE="10") as made:
                load = Load(made.client, name)
                async with load.running(CALLERS, pause=0.02):
                    for _ in range(FAULTS // LANES):
                        # Workers try twice a second: one without a turn for ten seconds gives up.
                        await asyncio.sleep(chance.uniform(0.8, 1.6))
                        async with fault(admin):
                            await asyncio.sleep(SECONDS)
                        await serves(made.client)
                assert not load.verdict.bad, load.verdict.bad[:5]
                assert load.verdict.right > 2 * FAULTS // LANES
                assert load.verdict.failed_calls > 0
            tries = [
                int((await admin.hget(record, "about")).split(b" ")[TRIES])
                async for record in admin.scan_iter("headstart:{0}:run:*", count=1000)
            ]
            assert set(tries) == {1}, (
                f"{sum(n > 1 for n in tries)} of {len(tries)} runs were tried again"
            )
        assert inconsistencies([valkey.url]) == []
    finally:
        await valkey.kill()
