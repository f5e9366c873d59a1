"""A run that has lost all workers but one that it may lose is run with nothing beside it."""

from __future__ import annotations

import asyncio

from headstart_service.domain import Status
from tests.integration.worker.conftest import Games, games_on
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LEASE = 0.5


async def _lose_two_workers(games: Games, *names: str) -> None:
    """Start these runs, and kill two workers while they run all of them."""
    for name in names:
        await games.start(name)
    for number in range(2):
        doomed = asyncio.create_task(games.worker(f"doomed-{number}", lease=LEASE).serve())
        await wait_until(lambda: games.control.running == len(names))
        doomed.cancel()
        await asyncio.wait({doomed})


async def test_a_last_try_has_nothing_beside_it(valkey: Valkey) -> None:
    async with games_on(valkey, lease=LEASE) as games:
        await _lose_two_workers(games, "a", "b", "c")
        games.control.peak = 0
        async with games.working("heir", lease=LEASE):
            await wait_until(lambda: games.control.running)
            await games.start("fresh")
            for _ in range(4):
                await wait_until(lambda: games.control.running)
                [name] = [n for n in ("a", "b", "c", "fresh") if _runs(games, n)]
                games.control.gates[name].set()
                await games.until(name, Status.COMPLETED)
        assert games.control.peak == 1


def _runs(games: Games, name: str) -> bool:
    begun = 1 if name == "fresh" else 3
    return games.control.second[name] == begun and not games.control.gates[name].is_set()


async def test_a_run_that_kills_its_workers_takes_no_other_along(valkey: Valkey) -> None:
    async with games_on(valkey, lease=LEASE) as games:
        await _lose_two_workers(games, "poison", "a", "b")
        for name in ("a", "b"):
            games.control.gates[name].set()
        doomed = asyncio.create_task(games.worker("doomed-3", lease=LEASE).serve())
        # The others may have ended before it, or may not; it takes none of them along.
        await wait_until(lambda: games.control.second["poison"] == 3)
        doomed.cancel()
        await asyncio.wait({doomed})
        async with games.working("heir", lease=LEASE):
            await games.until("poison", Status.FAILED)
            for name in ("a", "b"):
                await games.until(name, Status.COMPLETED)
