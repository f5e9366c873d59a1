"""A run waits in the queue of its pipeline's pool, and only workers of that pool take it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from headstart_service.domain import Awaits, Lack, Offer, PoolStats, RunKey, Status
from headstart_service.domain.errors import CapacityExhausted
from headstart_service.store.retries import Retries
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.upkeep import Upkeep
from tests.contract.backend import OFFER, TTL, Backend, done, plan
from tests.contract.beside import beside, sweep
from tests.support.waiting import wait_until

GPU = Offer("probe", "v1/gpu", {})
ON_GPU = replace(plan(), definition="v1/gpu")
PENDING, RUNNING = "pool:gpu:pending", "pool:gpu:in_progress"


async def start(backend: Backend, number: int, namespace: str = "games") -> list[RunKey]:
    """So many runs of the pool, in one partition."""
    keys = backend.neighbours(number, name="gpu", namespace=namespace)
    for key in keys:
        await backend.store.start(key, ON_GPU, TTL, restart=False)
    return keys


async def taken(backend: Backend, limit: int = 10, worker: str = "w2") -> list[RunKey]:
    """What a worker of the pool claims."""
    await backend.queue.prepare_queue()
    jobs = await backend.queue.unserved_jobs(0, worker, [GPU], limit)
    claims = [await backend.queue.claim(job, worker, [GPU]) for job in jobs]
    return [claim.lease.job.key for claim in claims if claim]


async def sizes(backend: Backend) -> tuple[int, int]:
    """How many runs of the pool are queued and how many run."""
    names = backend.all_keys[0]
    pending = await backend.redis("ZCARD", beside(names, PENDING))
    return pending, await backend.redis("ZCARD", beside(names, RUNNING))


async def test_a_run_of_a_pool_brings_no_job_to_workers_of_others(store_backend: Backend) -> None:
    keys = await start(store_backend, 3)
    assert await store_backend.jobs("w1") == []
    assert await taken(store_backend) == keys


async def test_the_sets_of_a_pool_hold_what_is_queued_and_what_runs(store_backend: Backend) -> None:
    first, second, third = await start(store_backend, 3)
    assert await sizes(store_backend) == (3, 0)
    await store_backend.queue.prepare_queue()
    jobs = await store_backend.queue.unserved_jobs(0, "w2", [GPU], 2)
    one, two = [await store_backend.queue.claim(job, "w2", [GPU]) for job in jobs]
    assert one is not None
    assert two is not None
    assert await sizes(store_backend) == (1, 2)
    await store_backend.queue.finish(one.lease, [done("first")], Status.COMPLETED, "")
    assert await sizes(store_backend) == (1, 1)
    await store_backend.store.cancel(third)
    assert await sizes(store_backend) == (0, 1)
    await store_backend.queue.release(two.lease)
    assert await sizes(store_backend) == (1, 0)
    assert await store_backend.jobs("w1") == []
    assert await taken(store_backend) == [second]
    for key in (first, second, third):
        await store_backend.store.delete(key)
    assert await sizes(store_backend) == (0, 0)


async def test_the_stats_tell_pools_apart(store_backend: Backend) -> None:
    await start(store_backend, 3)
    for key in store_backend.neighbours(2):
        await store_backend.start(key)
    for partition in range(store_backend.partitions):
        await store_backend.queue.offer(partition, "w1", [OFFER])
        await store_backend.queue.offer(partition, "w2", [GPU])
        await store_backend.queue.offer(partition, "w3", [GPU, OFFER])
    await store_backend.queue.prepare_queue()
    [job] = await store_backend.queue.next_jobs(0, "w1", 1, 0)
    assert await store_backend.queue.claim(job, "w1")
    stats = await store_backend.store.stats("")
    pools = {name: replace(pool, oldest_wait=0) for name, pool in stats.pools.items()}
    assert pools == {"default": PoolStats(1, 1, 2), "gpu": PoolStats(3, 0, 2)}
    assert stats.queued_jobs == 4
    assert stats.unserved == {}, "a worker offers what waits in its pool"


async def test_the_longest_wait_of_each_pool_is_shown(store_backend: Backend) -> None:
    store, queue = store_backend.store, store_backend.queue

    async def longest(pool: str = "gpu") -> float:
        return (await store.stats("")).pools[pool].oldest_wait

    [needed_later] = store_backend.neighbours(1, name="later")
    await store.start(needed_later, ON_GPU, TTL, restart=False, needed_in=300.0)
    assert await longest() == 0
    began = time.monotonic()
    await start(store_backend, 2, "first")
    await wait_until(lambda: _above(longest, 0.05))
    await start(store_backend, 6, "games")
    assert 0.05 < await longest() <= time.monotonic() - began
    assert await longest("default") == 0, "of other pools it knows nothing"

    await queue.offer(0, "w1", [OFFER, Offer("probe", "v2/gpu", {})])
    assert await longest() == 0, "it has workers, and none can compute these"
    await queue.offer(0, "w2", [GPU])
    assert await longest() > 0.05
    await taken(store_backend)
    assert await longest() == 0

    [key] = store_backend.neighbours(1, name="of-the-default-pool")
    await store_backend.start(key)
    await wait_until(lambda: _above(lambda: longest("default"), 0.05))
    assert await longest() == 0


async def _above(read: Callable[[], Awaitable[float]], least: float) -> bool:
    return await read() > least


async def test_a_run_whose_pool_has_no_worker_says_so(store_backend: Backend) -> None:
    [key] = await start(store_backend, 1)

    async def lacks() -> Lack | None:
        return (await store_backend.store.read(key)).summary.lacks

    assert await lacks() is Lack.WORKER
    await store_backend.queue.offer(0, "w1", [OFFER])
    assert await lacks() is Lack.POOL
    assert (await store_backend.store.status(key)).summary.lacks is Lack.POOL
    await store_backend.queue.offer(0, "w2", [Offer("other", "v1/gpu", {})])
    assert await lacks() is Lack.PIPELINE
    await store_backend.queue.offer(0, "w3", [Offer("probe", "v2/gpu", {})])
    assert await lacks() is Lack.VERSION
    await store_backend.queue.offer(0, "w4", [GPU])
    assert await lacks() is None


async def test_what_is_waited_for_and_what_is_needed_first_goes_first_in_a_pool(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(3, name="gpu")
    for key, needed_in in zip(keys, (300, 60, 600), strict=True):
        await store_backend.store.start(key, ON_GPU, TTL, restart=False, needed_in=needed_in)
    await store_backend.store.read(keys[2], awaits=Awaits.END)
    assert await taken(store_backend) == [keys[2], keys[1], keys[0]]


async def test_namespaces_share_a_pool_by_their_weights(store_backend: Backend) -> None:
    store_backend.weights = {"heavy": 3.0}
    await start(store_backend, 40, "light")
    await start(store_backend, 40, "heavy")
    # Another pool's progress counts nothing here.
    for key in store_backend.neighbours(40, namespace="light"):
        await store_backend.start(key)
    found: Counter[str] = Counter()
    for _ in range(20):
        found.update(key.namespace for key in await taken(store_backend, 2))
        [job] = await store_backend.queue.next_jobs(0, "w1", 1, 0)
        assert await store_backend.queue.claim(job, "w1")
    assert abs(found["heavy"] - 30) <= 1


async def test_a_claim_in_a_pool_costs_the_time_that_runs_have_a_slot(
    store_backend: Backend,
) -> None:
    store_backend.expected, store_backend.costs = {"probe": 9_000_000}, {"probe": 20_000}
    await start(store_backend, 2)
    await taken(store_backend, 1)
    turns = beside(store_backend.all_keys[0], "unserved:probe@v1/gpu:turns:1")
    assert float(await store_backend.redis("ZSCORE", turns, "games")) == 20_000


async def test_a_worker_of_two_pools_serves_both(store_backend: Backend) -> None:
    await start(store_backend, 10)
    for key in store_backend.neighbours(10):
        await store_backend.start(key)
    await store_backend.queue.prepare_queue()
    found: Counter[str] = Counter()
    while jobs := await store_backend.queue.next_jobs(0, "w1", 1, 0):
        claim = await store_backend.queue.claim(jobs[0], "w1", [GPU, OFFER])
        assert claim is not None
        found[claim.lease.job.key.key.partition("-")[0]] += 1
    assert found == {"gpu": 10, "key": 10}


async def test_a_worker_that_leaves_leaves_its_jobs_to_its_pool(store_backend: Backend) -> None:
    """There may be no worker of the default pool that would read them from the stream."""
    keys = await start(store_backend, 2)
    await store_backend.queue.prepare_queue()
    jobs = await store_backend.queue.unserved_jobs(0, "w2", [GPU], 2)
    assert await store_backend.queue.claim(jobs[0], "w2", [GPU])
    await store_backend.queue.deregister("w2")
    assert await store_backend.jobs("w1") == []
    assert sorted(await taken(store_backend, worker="w3")) == sorted(keys)


async def test_a_lost_run_of_a_pool_is_left_to_it_by_whoever_finds_it(
    store_backend: Backend,
) -> None:
    keys = await start(store_backend, 1)
    assert await taken(store_backend) == keys
    [job] = await store_backend.new_queue(lease=0).lost_jobs(0, "w1", 10)
    assert await store_backend.queue.claim(job, "w1") is None
    assert await taken(store_backend, worker="w3") == keys


async def test_a_full_queue_sheds_what_waits_in_vain_in_the_same_pool(
    store_backend: Backend,
) -> None:
    store_backend.expected = {"probe": 10_000_000}
    store = store_backend.new_store(max_live=2 * store_backend.partitions)
    late, next_, newcomer = store_backend.neighbours(3, name="gpu")
    for key in (late, next_):
        await store.start(key, ON_GPU, TTL, restart=False, needed_in=1.0)
    await store.start(newcomer, ON_GPU, TTL, restart=False)
    assert (await store.read(late)).summary.error.startswith("shed: ")
    with pytest.raises(CapacityExhausted):
        await store.start(store_backend.neighbours(1)[0], plan(), TTL, restart=False)


async def test_a_pipeline_that_moves_to_another_pool_takes_its_pending_runs_along(
    store_backend: Backend,
) -> None:
    for name, old, new in (("to", plan(), ON_GPU), ("from", ON_GPU, plan())):
        [key] = store_backend.neighbours(1, name=name)
        await store_backend.store.start(key, old, TTL, restart=False)
        await store_backend.store.start(key, new, TTL, restart=False)
        assert await sizes(store_backend) == ((1, 0) if new is ON_GPU else (0, 0))
        offer = GPU if new is ON_GPU else OFFER
        await store_backend.queue.prepare_queue()
        jobs = await store_backend.queue.next_jobs(0, "w1", 9, 0)
        jobs += await store_backend.queue.unserved_jobs(0, "w1", [offer], 9)
        claims = [await store_backend.queue.claim(job, "w1", [offer]) for job in jobs]
        assert [claim.lease.job.key for claim in claims if claim] == [key]
        await store_backend.store.delete(key)


async def test_lost_sets_of_a_pool_are_mended(store_backend: Backend) -> None:
    keys = await start(store_backend, 2)
    names = store_backend.all_keys[0]
    for lost in (PENDING, "pools", "unserved", "unserved:probe@v1/gpu"):
        await store_backend.redis("DEL", beside(names, lost))
    assert (await sweep(store_backend, names))[2] == 1
    await Upkeep(store_backend.scripts, Retries(10), Unwatched()).reindex(names)
    assert await sizes(store_backend) == (2, 0)
    assert await taken(store_backend) == keys
