"""Sentinels promote, clusters lose masters and move slots, all under load: no run is lost or wrong."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.chaos.test_redis_faults import loaded
from tests.support.consistency import inconsistencies
from tests.support.load import serves
from tests.support.nodes import sentinel_pair, six_nodes
from tests.support.rig import FAULTS

pytestmark = pytest.mark.chaos

PARTITIONS = 4


async def test_a_sentinel_promotes_the_replica_of_a_killed_master(
    tmp_path: Path, chance: random.Random
):
    with sentinel_pair(tmp_path) as pair:
        # What a master had not sent to its replica is gone: replication is asynchronous.
        async with loaded(pair.url, "failover", forgets=True) as (made, load):
            for _ in range(FAULTS):
                await asyncio.sleep(chance.uniform(0, 0.6))
                await asyncio.to_thread(pair.fail_over)
                await serves(made.client)
        print(f"forgotten by a failover: {load.verdict.started_again}")
        assert inconsistencies([pair.master.url]) == []


async def test_a_cluster_whose_masters_are_killed(tmp_path: Path, chance: random.Random):
    with six_nodes(tmp_path) as cluster:
        settings = {"HEADSTART_PARTITIONS": str(PARTITIONS)}
        async with loaded(cluster.url, "cluster", forgets=True, **settings) as (made, load):
            for _ in range(FAULTS):
                await asyncio.sleep(chance.uniform(0, 0.6))
                victim = cluster.owner(key_slot(f"{{{chance.randrange(PARTITIONS)}}}".encode()))
                await asyncio.to_thread(cluster.fail_over, victim)
                await serves(made.client)
        print(f"forgotten by a failover: {load.verdict.started_again}")
        assert inconsistencies([node.url for node in cluster.masters], PARTITIONS) == []


async def test_a_slot_that_moves_under_load(tmp_path: Path, chance: random.Random):
    with six_nodes(tmp_path) as cluster:
        settings = {"HEADSTART_PARTITIONS": str(PARTITIONS)}
        async with loaded(cluster.url, "slot", **settings) as (made, _):
            for _ in range(FAULTS):
                await asyncio.sleep(chance.uniform(0, 0.4))
                slot = key_slot(f"{{{chance.randrange(PARTITIONS)}}}".encode())
                source = cluster.owner(slot)
                target = chance.choice([node for node in cluster.masters if node is not source])
                await asyncio.to_thread(cluster.migrate, slot, target)
                await serves(made.client)
        assert inconsistencies([node.url for node in cluster.masters], PARTITIONS) == []
