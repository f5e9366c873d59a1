"""Redis refuses everybody for two seconds under load: no run is lost, and none needs a second try."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from redis.asyncio import Redis

from headstart_service.store.redis_store import ABOUT
from tests.support.consistency import inconsistencies
from tests.support.deployments import least_rights
from tests.support.load import Load, serves
from tests.support.redis_faults import another_password, busy
from tests.support.rig import FAULTS, rig
from tests.support.valkey import Valkey

pytestmark = pytest.mark.chaos

SECONDS = 2.0
"""How long Redis refuses: shorter than a lease and than a worker's patience."""
TRIES = ABOUT.index("tries")


@pytest.mark.parametrize("fault", [busy, another_password])
async def test_a_redis_that_refuses_for_two_seconds_costs_no_try(
    valkey: Valkey,
    chance: random.Random,
    fault: Callable[[Redis], AbstractAsyncContextManager[None]],
):
    operator = Redis(host="127.0.0.1", port=valkey.port, protocol=2, socket_timeout=None)
    async with operator as admin:
        rules = " ".join(least_rights("headstart"))
        await admin.execute_command(f"ACL SETUSER headstart on >s3cret {rules}")
        url = valkey.url.replace("//", "//headstart:s3cret@")
        async with rig(url, HEADSTART_LEASE="10") as made:
            load = Load(made.client, fault.__name__)
            async with load.running(12, pause=0.02):
                for _ in range(FAULTS):
                    # Workers try twice a second: one that gets no turn for ten seconds gives up.
                    await asyncio.sleep(chance.uniform(0.8, 1.6))
                    async with fault(admin):
                        await asyncio.sleep(SECONDS)
                    await serves(made.client)
            assert not load.verdict.bad, load.verdict.bad[:5]
            assert load.verdict.right > 2 * FAULTS
            assert load.verdict.failed_calls > 0
        tries = [
            int((await admin.hget(record, "about")).split(b" ")[TRIES])
            async for record in admin.scan_iter("headstart:{0}:run:*", count=1000)
        ]
        assert set(tries) == {1}, (
            f"{sum(n > 1 for n in tries)} of {len(tries)} runs were tried again"
        )
    assert inconsistencies([valkey.url]) == []
