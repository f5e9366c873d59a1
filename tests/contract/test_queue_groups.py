"""The queue can be counted, in metrics and by other tools, before the first worker has come."""

from __future__ import annotations

from typing import Any

from headstart_service.domain import RunKey
from headstart_service.store.keys import GROUP
from tests.contract.backend import Backend

KEY = RunKey("games", "game-1")


async def _counted(backend: Backend) -> tuple[int, int]:
    """The lag and the pending entries of the group."""
    client: Any = backend.raw
    [group] = await client.xinfo_groups(backend.keys_of(KEY).jobs)
    assert group["name"] == GROUP.encode()
    return group["lag"], group["pending"]


async def test_an_api_process_alone_makes_the_queue_countable(store_backend: Backend) -> None:
    await store_backend.store.prepare()
    assert await _counted(store_backend) == (0, 0)
    await store_backend.start(KEY)
    assert await _counted(store_backend) == (1, 0)
    # Delivered and not ended: that must be seen too, or the last worker is taken away from it.
    await store_backend.queue.next_jobs(store_backend.keys_of(KEY).partition, "w1", 10, 0)
    assert await _counted(store_backend) == (0, 1)


async def test_jobs_that_were_queued_before_the_group_are_counted(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await store_backend.store.prepare()
    assert await _counted(store_backend) == (1, 0)


async def test_preparing_again_changes_nothing_and_heals_what_a_flush_took(
    store_backend: Backend,
) -> None:
    await store_backend.store.prepare()
    await store_backend.start(KEY)
    await store_backend.store.prepare()
    assert await _counted(store_backend) == (1, 0)
    await store_backend.redis("DEL", store_backend.keys_of(KEY).jobs)
    await store_backend.store.prepare()
    assert await _counted(store_backend) == (0, 0)
