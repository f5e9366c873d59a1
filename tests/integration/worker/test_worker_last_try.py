"""A run that has lost all workers but one that it may lose is run with nothing beside it."""

from __future__ import annotations

import asyncio

from headstart_service.domain import Status
from tests.integration.worker.conftest import Backend, backend_on
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LEASE = 0.5


async def _lose_two_workers(backend: Backend, *names: str) -> None:
    """Start these runs, and kill two workers while they run all of them."""
    for name in names:
        await backend.start(name)
    for number in range(2):
        doomed = asyncio.create_task(backend.worker(f"doomed-{number}", lease=LEASE).serve())
        await wait_until(lambda: backend.control.running == len(names))
        doomed.cancel()
        await asyncio.wait({doomed})


async def test_a_last_try_has_nothing_beside_it(valkey: Valkey) -> None:
    async with backend_on(valkey, lease=LEASE) as backend:
        await _lose_two_workers(backend, "a", "b", "c")
        backend.control.peak = 0
        async with backend.working("heir", lease=LEASE):
            await wait_until(lambda: backend.control.running)
            await backend.start("fresh")
            for _ in range(4):
                await wait_until(lambda: backend.control.running)
                [name] = [n for n in ("a", "b", "c", "fresh") if _runs(backend, n)]
                backend.control.gates[name].set()
                await backend.until(name, Status.COMPLETED)
        assert backend.control.peak == 1


def _runs(backend: Backend, name: str) -> bool:
    begun = 1 if name == "fresh" else 3
    return backend.control.second[name] == begun and not backend.control.gates[name].is_set()


async def test_a_run_that_kills_its_workers_takes_no_other_along(valkey: Valkey) -> None:
    async with backend_on(valkey, lease=LEASE) as backend:
        await _lose_two_workers(backend, "poison", "a", "b")
        for name in ("a", "b"):
            backend.control.gates[name].set()
        doomed = asyncio.create_task(backend.worker("doomed-3", lease=LEASE).serve())
        # The others may have ended before it, or may not; it takes none of them along.
        await wait_until(lambda: backend.control.second["poison"] == 3)
        doomed.cancel()
        await asyncio.wait({doomed})
        async with backend.working("heir", lease=LEASE):
            await backend.until("poison", Status.FAILED)
            for name in ("a", "b"):
                await backend.until(name, Status.COMPLETED)
