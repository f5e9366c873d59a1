"""Workers can be scaled from zero: the queue's consumer group is there before the first of them."""

from __future__ import annotations

from typing import Any

from headstart_service.store.keys import GROUP, PartitionKeys
from tests.support.processes import api
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


async def _groups(valkey: Valkey, partition: int) -> list[Any]:
    async with valkey.client() as client:
        stream = PartitionKeys(partition).jobs
        if not await client.exists(stream):
            return []
        return [group["name"] for group in await client.xinfo_groups(stream)]


async def test_a_serving_api_process_has_made_the_groups_of_all_partitions(valkey: Valkey):
    async with api(valkey.url, HEADSTART_PARTITIONS="2") as (process, _):
        assert await _groups(valkey, 0) == [GROUP.encode()]
        assert await _groups(valkey, 1) == [GROUP.encode()]
        # A Redis that comes back with nothing is prepared anew before it is served from.
        await valkey.kill()
        await process.says("not serving: Redis does not answer")
        valkey.forget()
        await valkey.start()
        await wait_until(lambda: _made_again(valkey))


async def _made_again(valkey: Valkey) -> bool:
    return all([await _groups(valkey, partition) for partition in (0, 1)])
