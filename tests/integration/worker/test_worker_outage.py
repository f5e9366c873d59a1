"""A worker outlasts its store: away, restarted, emptied or full."""

from __future__ import annotations

import asyncio

from headstart_service.domain import Status
from tests.integration.worker.conftest import games_on
from tests.support.ledger import tasks_left
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


async def test_an_idle_worker_outlasts_an_outage(valkey: Valkey) -> None:
    async with games_on(valkey) as games, games.working() as serving:
        await games.until_heard()
        await valkey.kill()
        # Long enough for a poll to fail: it blocks for a second at most.
        done, _ = await asyncio.wait({serving}, timeout=1.2)
        assert not done
        await valkey.start()
        games.control.gates["g"].set()
        await wait_until(lambda: games.start("g"))
        await games.until("g", Status.COMPLETED)


async def test_a_run_whose_result_could_not_be_kept_is_done_again(valkey: Valkey) -> None:
    lease = 1.0
    async with games_on(valkey, lease=lease, budget=0.3) as games:
        await games.start("g")
        async with games.working(lease=lease):
            await wait_until(lambda: games.control.running)
            await games.until_kept("g", "first")
            await valkey.kill()
            games.control.gates["g"].set()
            await wait_until(lambda: not [t for t in tasks_left() if t.startswith("default/g")])
            await valkey.start()
            await games.until("g", Status.COMPLETED)
        assert games.control.first["g"] == 1, "it was kept before the outage"
        assert games.control.second["g"] == 2


async def test_a_run_that_ends_after_a_short_outage_is_kept(valkey: Valkey) -> None:
    async with games_on(valkey) as games:
        await games.start("g")
        async with games.working():
            await wait_until(lambda: games.control.running)
            await valkey.kill()
            await valkey.start()
            games.control.gates["g"].set()
            await games.until("g", Status.COMPLETED)
        assert games.control.second["g"] == 1


async def test_withdrawals_are_received_again_after_an_outage(valkey: Valkey) -> None:
    async with games_on(valkey) as games:
        await games.start("g")
        async with games.working(lease=600.0):
            await games.until_heard()
            await wait_until(lambda: games.control.running)
            await valkey.kill()
            await valkey.start()
            await games.until_heard()
            assert (await games.start("g", "other")).revision == 2
            await wait_until(lambda: games.control.second["g"] == 2)
            assert games.control.running == 1
            games.control.gates["g"].set()
            await games.until("g", Status.COMPLETED)


async def test_a_flushed_store_is_served_again(valkey: Valkey) -> None:
    async with games_on(valkey) as games, games.working(), valkey.client() as client:
        await games.until_heard()
        await client.flushall()
        games.control.gates["g"].set()
        await games.start("g")
        await games.until("g", Status.COMPLETED)


async def test_a_full_store_still_keeps_what_runs(valkey: Valkey) -> None:
    async with games_on(valkey) as games, valkey.client() as client:
        await games.start("g")
        async with games.working():
            await wait_until(lambda: games.control.running)
            await client.config_set("maxmemory", 1)
            games.control.gates["g"].set()
            await games.until("g", Status.COMPLETED)


async def test_a_worker_can_stop_before_it_ever_reached_its_store(valkey: Valkey) -> None:
    async with games_on(valkey, budget=0.2) as games:
        await valkey.kill()
        worker = games.worker()
        serving = asyncio.create_task(worker.serve())
        done, _ = await asyncio.wait({serving}, timeout=0.3)
        assert not done
        worker.stop()
        async with asyncio.timeout(5):
            await serving
        await wait_until(lambda: not tasks_left())


async def test_a_worker_that_drains_during_an_outage_ends_without_an_error(
    valkey: Valkey,
) -> None:
    async with games_on(valkey, budget=0.3) as games:
        await games.start("g")
        async with games.working(drain=0.05):
            await wait_until(lambda: games.control.running)
            await valkey.kill()
        assert games.control.running == 0
        await wait_until(lambda: not tasks_left())
