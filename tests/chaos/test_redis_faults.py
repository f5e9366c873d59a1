"""Redis is restarted, emptied, stopped, cut off, full or demoted under load: no run is lost or wrong."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha1
from pathlib import Path

import pytest

from headstart_service.store.scripts import SOURCES
from tests.support.consistency import inconsistencies
from tests.support.load import Load, serves
from tests.support.processes import health
from tests.support.proxy import proxy
from tests.support.rig import FAULTS, Rig, rig
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

LONG = 25.0
"""Seconds of a wait that waiters, who look again every ten by themselves, never need in full."""
CUT = ("start", "claim", "commit", "read")
"""The scripts of which requests or replies are cut."""
BURST = 20
"""So many runs are started at once when Redis begins to hang, so that claims are on their way."""
LANES = 4
"""So many services are broken side by side where one fault takes ten seconds."""


@asynccontextmanager
async def loaded(
    url: str, name: str, *, forgets: bool = False, wait: float = 2.0, **environment: str
) -> AsyncIterator[tuple[Rig, Load]]:
    """A service under load; when the context closes, every run has ended as it should."""
    async with rig(url, **environment) as made:
        load = Load(made.client, name, forgets=forgets, wait=wait)
        async with load.running(12, pause=0.1):
            yield made, load
        assert not load.verdict.bad, load.verdict.bad[:5]
        assert load.verdict.right > 0
        assert (await made.client.get_stats()).queued_jobs == 0


async def test_a_redis_that_is_killed_and_comes_back_with_its_data(
    valkey: Valkey, chance: random.Random
):
    async with loaded(valkey.url, "restart") as (made, _):
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.6))
            await valkey.kill()
            await valkey.start()
            await serves(made.client)
    assert inconsistencies([valkey.url]) == []


async def test_a_redis_that_comes_back_empty(valkey: Valkey, chance: random.Random):
    async with loaded(valkey.url, "empty", forgets=True) as (made, load):
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.6))
            await valkey.kill()
            valkey.forget()
            await valkey.start()
            await serves(made.client)
    assert load.verdict.started_again > 0
    assert inconsistencies([valkey.url]) == []


async def test_a_flushed_redis(valkey: Valkey, chance: random.Random):
    async with loaded(valkey.url, "flush", forgets=True) as (_, load), valkey.client() as redis:
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            await redis.flushall()
    assert load.verdict.started_again > 0
    assert inconsistencies([valkey.url]) == []


async def test_scripts_that_are_flushed(valkey: Valkey, chance: random.Random):
    async with loaded(valkey.url, "scripts") as (_, load), valkey.client() as redis:
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.4))
            await redis.script_flush()
    assert load.verdict.failed_calls == 0
    assert inconsistencies([valkey.url]) == []


async def test_a_redis_that_hangs_for_ten_seconds(tmp_path: Path, chance: random.Random):
    async def lane(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        valkey = Valkey(directory)
        await valkey.start()
        assert valkey.process is not None
        try:
            async with loaded(valkey.url, f"hang{number}") as (made, load):
                burst = Load(made.client, f"burst{number}")
                for _ in range(FAULTS // LANES):
                    await asyncio.sleep(chance.uniform(0, 1.0))
                    async with burst.running(BURST):
                        await asyncio.sleep(chance.uniform(0, 0.1))
                        valkey.process.send_signal(signal.SIGSTOP)
                        met = set(load.under_way)
                        try:
                            await asyncio.sleep(10)
                        finally:
                            valkey.process.send_signal(signal.SIGCONT)
                    # A hang counts as one of the three tries of a run, so none may meet them all.
                    await wait_until(lambda met=met: not met & load.under_way, within=60)
                assert not burst.verdict.bad, burst.verdict.bad[:5]
            assert inconsistencies([valkey.url]) == []
        finally:
            await valkey.kill()

    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            group.create_task(lane(number))


async def test_connections_that_are_cut_in_the_middle_of_a_command(
    valkey: Valkey, chance: random.Random
):
    async with proxy(valkey.port) as between:
        async with loaded(f"redis://127.0.0.1:{between.port}", "cut"):
            for number in range(2 * FAULTS):
                await asyncio.sleep(chance.uniform(0, 0.3))
                script = SOURCES[chance.choice(CUT)]
                before = between.cuts
                between.cut_next(_name(script), in_reply=number % 2 == 0)
                await wait_until(lambda before=before: between.cuts > before)
        assert between.cuts >= 2 * FAULTS
    assert inconsistencies([valkey.url]) == []


def _name(script: str) -> bytes:
    """By which Redis is asked to run a script that it has."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


async def test_a_redis_whose_memory_is_full(valkey: Valkey, chance: random.Random):
    async with loaded(valkey.url, "full") as (made, load), valkey.client() as redis:
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.4))
            await redis.config_set("maxmemory", 1)
            before = load.verdict.refused
            await wait_until(lambda before=before: load.verdict.refused > before)
            await redis.config_set("maxmemory", 0)
        await serves(made.client)
    assert load.verdict.failed_calls == load.verdict.refused, (
        "refused starts are all that callers saw"
    )
    assert inconsistencies([valkey.url]) == []


async def test_a_redis_that_is_a_read_only_replica_for_a_while(
    valkey: Valkey, chance: random.Random
):
    nowhere = free_port()  # a replica whose master is away keeps its data, and refuses to write
    async with loaded(valkey.url, "replica") as (made, load), valkey.client() as redis:
        for number in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.5))
            await redis.execute_command("REPLICAOF", "127.0.0.1", nowhere)
            if number % 5:
                await asyncio.sleep(chance.uniform(0, 0.7))
            else:  # long enough for everybody to be sent elsewhere
                await wait_until(lambda: _is_not_serving(made))
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            await serves(made.client)
    assert load.verdict.failed_calls > 0
    assert inconsistencies([valkey.url]) == []


async def _is_not_serving(made: Rig) -> bool:
    return await health(made.address) == "NOT_SERVING"


async def test_announcements_that_are_lost(valkey: Valkey, chance: random.Random):
    """Killed subscriptions, and ones that say nothing for seconds though they seem to live."""
    async with (
        proxy(valkey.port) as between,
        loaded(f"redis://127.0.0.1:{between.port}", "deaf", wait=LONG) as (_, load),
        valkey.client() as redis,
    ):
        for number in range(FAULTS):
            await asyncio.sleep(chance.uniform(0, 0.5))
            if number < FAULTS // 2:
                await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            else:  # and no subscription is made anew that would have everybody look again
                between.silent = True
                await asyncio.sleep(chance.uniform(1, 3))
                between.silent = False
    assert load.verdict.failed_calls == 0, "every waiter was answered within its wait"
    assert load.verdict.outwaited == 0, "and not only at its end"
    assert inconsistencies([valkey.url]) == []
