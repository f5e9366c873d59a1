"""What KEDA reads to scale workers: the runs that are queued or running, and no others."""

from __future__ import annotations

from typing import Any

from deploy.keda import Scaling
from headstart_service.domain import Status
from headstart_service.store.keys import GROUP
from tests.contract.backend import Backend, done, plan
from tests.support.autoscaler import computed


async def counted(backend: Backend) -> dict[str, int]:
    """The sizes that the triggers read, as KEDA does, added up by their names' beginnings."""
    scaling = Scaling(partitions=backend.partitions, prefix=backend.prefix)
    values: dict[str, float] = {}
    for trigger in scaling.triggers():
        key = trigger["metadata"]["listName"]
        kind = await backend.redis("TYPE", key)
        assert kind in {b"zset", b"none"}
        values[trigger["name"]] = await backend.redis("ZCARD", key)
    sums = {
        term: int(sum(size for name, size in values.items() if name.startswith(term)))
        for term in ("queued", "running")
    }
    assert computed(scaling.formula(), values) == sum(sums.values())
    return sums


async def lag(backend: Backend) -> int:
    """The jobs of all partitions that no worker has taken."""
    found: list[Any] = [await backend.raw.xinfo_groups(keys.jobs) for keys in backend.all_keys]
    return sum(group["lag"] for [group] in found if group["name"] == GROUP.encode())


async def test_an_empty_store_counts_nothing(store_backend: Backend) -> None:
    assert await counted(store_backend) == {"queued": 0, "running": 0}
    await store_backend.store.prepare()
    assert await counted(store_backend) == {"queued": 0, "running": 0}


async def test_cancelled_and_replaced_runs_and_their_tickets_count_no_more(
    store_backend: Backend,
) -> None:
    await store_backend.store.prepare()
    places = range(store_backend.partitions)
    for partition in places:
        first, second, third = store_backend.neighbours(3, partition)
        for key in (first, second, third):
            await store_backend.start(key)
        await store_backend.store.cancel(second)
        for digest in ("d2", "d3"):
            await store_backend.start(third, plan(digest, {"first": digest, "second": digest}))
    number = len(places)
    assert await counted(store_backend) == {"queued": 2 * number, "running": 0}
    assert await lag(store_backend) > 2 * number, "what a consumer group counts is more"


async def test_a_run_counts_from_its_start_until_its_end_and_once(store_backend: Backend) -> None:
    key, other = store_backend.neighbours(2)
    claim = await store_backend.begin(key)
    await store_backend.start(other)
    assert await counted(store_backend) == {"queued": 1, "running": 1}
    await store_backend.queue.release(claim.lease)
    assert await counted(store_backend) == {"queued": 2, "running": 0}
    for job in await store_backend.jobs():
        again = await store_backend.queue.claim(job, "w1")
        assert again is not None
        assert (await counted(store_backend))["running"] == 1
        ended = [done("first"), done("second")]
        await store_backend.queue.finish(again.lease, ended, Status.COMPLETED, "")
    assert await counted(store_backend) == {"queued": 0, "running": 0}


async def test_a_run_that_was_left_for_other_workers_counts(store_backend: Backend) -> None:
    """From zero, no worker comes for it otherwise."""
    [key] = store_backend.neighbours(1)
    await store_backend.start(key)
    for job in await store_backend.jobs():
        assert await store_backend.queue.claim(job, "w1", []) is None
    assert await counted(store_backend) == {"queued": 1, "running": 0}
