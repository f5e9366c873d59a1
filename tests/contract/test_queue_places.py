"""Where runs stand in the queue, to the last microsecond, and which ticket takes which."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from headstart_service.domain import (
    Awaits,
    Offer,
    RunKey,
    Status,
)
from headstart_service.domain.errors import CapacityExhausted, LastTry
from headstart_service.store.job_queue import MAX_TRIES
from headstart_service.store.keys import GROUP
from tests.contract.backend import OFFER, TTL, Backend, done, plan
from tests.contract.beside import (
    KEY,
    SECOND,
    beside,
    name_of,
    now_us,
    stand,
    sweep,
)


async def test_a_worker_that_leaves_hands_on_no_run_that_was_started_anew_meanwhile(
    store_backend: Backend,
) -> None:
    """Its job is that of the run before."""
    keys = store_backend.keys_of(KEY)
    at_once = store_backend.new_queue(lease=0)
    await store_backend.begin(KEY, "w1")
    for number in range(MAX_TRIES - 2):
        [job] = await at_once.lost_jobs(keys.partition, f"lost-{number}", 1)
        claim = await at_once.claim(job, f"lost-{number}")
        assert claim is not None
    await at_once.release(claim.lease)
    # Three tries are counted again, as if the last worker had been lost.
    words = (await store_backend.redis("HGET", keys.record(KEY), "about")).split(b" ")
    words[3] = str(MAX_TRIES - 1).encode()
    await store_backend.redis("HSET", keys.record(KEY), "about", b" ".join(words))
    [job] = await store_backend.jobs("w8")
    with pytest.raises(LastTry):
        await store_backend.queue.claim(job, "w8", alone=False)
    await store_backend.store.cancel(KEY)
    claim = await store_backend.begin(KEY, "w9")
    await store_backend.queue.deregister("w8")
    assert (await store_backend.record(KEY))[b"entry"].decode() == claim.lease.job.entry
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")


async def test_a_run_whose_ticket_is_lost_is_handed_on_in_the_place_of_now(
    store_backend: Backend,
) -> None:
    urgent, first = store_backend.neighbours(2)
    keys = store_backend.keys_of(urgent)
    await store_backend.start(urgent)
    claim = await store_backend.claim()
    await store_backend.start(first)
    await store_backend.redis("DEL", keys.tickets)
    await store_backend.queue.release(claim.lease)
    score = await store_backend.redis("ZSCORE", beside(keys, "waiting"), name_of(urgent))
    assert int(score) % 2 == 0, "nobody has declared when it is needed"
    found = [await store_backend.queue.claim(job, "w2") for job in await store_backend.jobs("w2")]
    assert [each.lease.job.key for each in found if each] == [first, urgent]


async def test_one_claim_passes_over_a_hundred_late_runs_and_takes_thenext_of(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(103)
    names = store_backend.keys_of(keys[0])
    queue = store_backend.new_queue()
    store_backend.expected = {"probe": 90 * SECOND}
    for key in keys:
        await store_backend.store.start(key, plan(), TTL, restart=False, needed_in=60)
    first, *_ = await store_backend.jobs()
    claim = await queue.claim(first, "w1")
    assert claim is not None
    assert claim.lease.job.key == keys[100]
    behind = await store_backend.redis("ZCOUNT", beside(names, "waiting"), 2**52, "+inf")
    assert behind == 100


async def test_a_share_of_a_declared_need_is_left_for_what_takes_longer(
    store_backend: Backend,
) -> None:
    """Two fifths of a hundred seconds: a run of 58 is in time, one of 62 is not."""
    [key] = store_backend.neighbours(1)
    names = store_backend.keys_of(key)
    await store_backend.store.start(key, plan(), TTL, restart=False, needed_in=100)
    other = store_backend.neighbours(2)[1]
    await store_backend.store.start(other, plan(), TTL, restart=False, needed_in=5000)
    queue = store_backend.new_queue()
    for seconds, first in ((62, other), (58, key)):
        store_backend.expected = {"probe": seconds * SECOND}
        member = name_of(key)
        score = int(await store_backend.redis("ZSCORE", beside(names, "waiting"), member))
        [job] = await store_backend.jobs("w1", limit=1)
        claim = await queue.claim(job, "w1")
        assert claim is not None
        assert claim.lease.job.key == first, seconds
        await queue.release(claim.lease)
        await stand(store_backend, key, score)


@pytest.mark.parametrize("how", ["read", "passed over"])
async def test_a_run_of_a_busy_namespace_that_waits_in_vain_is_found_among_a_hundred(
    store_backend: Backend, how: str
) -> None:
    """As far as one start looks at those in front."""
    store = store_backend.new_store(max_live=100 * store_backend.partitions)
    store_backend.expected = {"probe": 90 * SECOND}
    others = store_backend.neighbours(99, namespace="others")
    [late, newcomer] = store_backend.neighbours(2)
    for key in (*others, late):
        await store.start(key, plan(), TTL, restart=False, needed_in=60)
    if how == "passed over":
        for place, key in enumerate((late, *others)):
            await stand(store_backend, key, 2**52 + place)
    await store.start(newcomer, plan(), TTL, restart=False)
    assert (await store.read(late)).summary.error.startswith("shed: ")
    with pytest.raises(CapacityExhausted):
        await store.start(RunKey("games", "one more"), plan(), TTL, restart=False)


async def test_a_wait_for_a_run_whose_last_try_is_set_aside_gives_it_to_no_busy_worker(
    store_backend: Backend,
) -> None:
    other = store_backend.neighbours(1)[0]
    names = store_backend.keys_of(other)
    await store_backend.begin(other)
    at_once = store_backend.new_queue(lease=0)
    for number in range(MAX_TRIES - 2):
        [job] = await at_once.lost_jobs(names.partition, f"lost-{number}", 1)
        claim = await at_once.claim(job, f"lost-{number}")
        assert claim is not None
    await at_once.release(claim.lease)
    words = (await store_backend.redis("HGET", names.record(other), "about")).split(b" ")
    words[3] = str(MAX_TRIES - 1).encode()
    await store_backend.redis("HSET", names.record(other), "about", b" ".join(words))
    [job] = await store_backend.jobs("w8")
    with pytest.raises(LastTry):
        await store_backend.queue.claim(job, "w8", alone=False)
    await store_backend.store.read(other, awaits=Awaits.END)
    await store_backend.start(other)  # and a start that joins moves it no more
    neighbour = store_backend.neighbours(2)[1]
    await store_backend.start(neighbour)
    [second] = await store_backend.jobs("w9")
    claim = await store_backend.queue.claim(second, "w9", alone=False)
    assert claim is not None
    assert claim.lease.job.key == neighbour
    alone = await store_backend.queue.claim(job, "w8", alone=True)
    assert alone is not None
    assert alone.lease.job.key == other


async def test_the_oldest_job_of_all_partitions_has_waited_since_its_entry_was_written(
    store_backend: Backend,
) -> None:
    partitions = range(store_backend.partitions)
    keys = [store_backend.neighbours(1, partition)[0] for partition in partitions]
    old = round(time.time() * 1000) - 30_000
    names = store_backend.keys_of(keys[0])
    await store_backend.redis("XADD", names.jobs, f"{old}-0", "member", name_of(keys[0]))
    for key in keys:
        await store_backend.start(key)
    for _ in range(2):
        stats = await store_backend.store.stats("")
        assert 29 < stats.oldest_wait < 60
        assert stats.queued_jobs == len(keys) + 1
        await store_backend.queue.prepare_queue()
    await store_backend.jobs("w1")
    assert (await store_backend.store.stats("")).oldest_wait == 0


@pytest.mark.parametrize(("needed_in", "odd"), [(None, 0), (0.0, 1), (60.0, 1), (60.000001, 1)])
async def test_a_place_in_the_queue_shows_whether_the_need_was_declared(
    store_backend: Backend, needed_in: float | None, odd: int
) -> None:
    await store_backend.store.start(KEY, plan(), TTL, restart=False, needed_in=needed_in)
    keys = store_backend.keys_of(KEY)
    score = int(await store_backend.redis("ZSCORE", beside(keys, "waiting"), name_of(KEY)))
    assert score % 2 == odd
    assert abs(score - now_us() - (needed_in or 0) * SECOND) < 30 * SECOND


async def test_runs_that_are_started_in_one_batch_are_served_in_the_order_of_their_calls(
    store_backend: Backend,
) -> None:
    """Within a script Redis' clock stands still, and their names are no order."""
    first, *keys = store_backend.neighbours(20)
    keys.reverse()
    store = store_backend.store
    await asyncio.gather(*(store.start(key, plan(), TTL, restart=False) for key in (first, *keys)))
    found = [await store_backend.queue.claim(job, "w1") for job in await store_backend.jobs()]
    assert [claim.lease.job.key for claim in found if claim] == [first, *keys]


async def test_a_run_without_a_ticket_gets_one_though_others_wait_to_be_delivered(
    store_backend: Backend,
) -> None:
    first, second = store_backend.neighbours(2)
    keys = store_backend.keys_of(first)
    await store_backend.start(first)
    await store_backend.start(second)
    [job] = await store_backend.jobs("w1", limit=1)
    await store_backend.scripts.drop(keys, None, entry=job.entry)
    for _ in range(2):
        await sweep(store_backend, keys)
        assert await store_backend.redis("XLEN", keys.jobs) == 2
    found = [await store_backend.queue.claim(job, "w1") for job in await store_backend.jobs("w1")]
    assert [claim.lease.job.key for claim in found if claim] == [first, second]


async def test_a_ticket_of_a_run_that_was_replaced_takes_none_that_is_set_aside(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    [job] = await store_backend.jobs("w1")
    keys = store_backend.keys_of(KEY)
    await store_backend.redis("HSET", keys.tickets, job.entry, f"5 another-run {name_of(KEY)}")
    await store_backend.redis("ZADD", beside(keys, "waiting"), "inf", name_of(KEY))
    assert await store_backend.queue.claim(job, "w1") is None
    assert (await store_backend.store.status(KEY)).summary.status is Status.PENDING
    assert await store_backend.redis("EXISTS", keys.tickets) == 0


async def test_a_run_that_is_waited_for_has_not_waited_longer_than_that(
    store_backend: Backend,
) -> None:
    """No worker has come yet, and starts are accepted for five minutes."""
    first, second, third = store_backend.neighbours(3)
    waiting = beside(store_backend.keys_of(first), "waiting")
    await store_backend.start(first)
    await store_backend.store.read(first, awaits=Awaits.END)
    await store_backend.start(second)
    await store_backend.redis("ZINCRBY", waiting, -310e6, name_of(first))
    with pytest.raises(CapacityExhausted, match="no worker has come"):
        await store_backend.start(third)
    await store_backend.redis("DEL", waiting)
    await store_backend.start(third)


async def test_a_run_in_progress_that_is_replaced_leaves_no_job(store_backend: Backend) -> None:
    await store_backend.begin(KEY)
    keys = store_backend.keys_of(KEY)
    await store_backend.start(KEY, plan("d2"))
    assert await store_backend.redis("XLEN", keys.jobs) == 1
    assert await store_backend.redis("EXISTS", keys.tickets) == 0
    pending: Any = await store_backend.raw.xpending(keys.jobs, GROUP)
    assert pending["pending"] == 0


@pytest.mark.parametrize(
    ("first", "then", "due", "odd"),
    [
        (60.0, None, 0.0, 0),
        (None, 60.0, 0.0, 0),
        (60.0, 600.0, 60.0, 1),
        (600.0, 60.0, 60.0, 1),
        (5.0, 600.0, 600.0, 1),  # it was too late for the first, which counts no more
        (5.0, 2.0, 2.0, 1),
    ],
)
async def test_a_join_counts_by_when_the_most_hurried_needs_it_in_time(
    store_backend: Backend, first: float | None, then: float | None, due: float, odd: int
) -> None:
    store, keys = store_backend.new_store(), store_backend.keys_of(KEY)
    await store.start(KEY, plan(), TTL, restart=False, needed_in=first)
    at = now_us()
    store_backend.expected = {"probe": 10 * SECOND}
    await store.start(KEY, plan(), TTL, restart=False, needed_in=then)
    score = int(await store_backend.redis("ZSCORE", beside(keys, "waiting"), name_of(KEY)))
    assert score % 2 == odd
    assert abs((score - at) / SECOND - due) < 1.5


async def test_a_last_try_that_is_set_aside_stands_nowhere_else(store_backend: Backend) -> None:
    """Not even among runs that were left for workers of its version."""
    keys = store_backend.keys_of(KEY)
    await store_backend.start(KEY)
    [job] = await store_backend.jobs("w1")
    assert await store_backend.queue.claim(job, "w1", [Offer("probe", "v9", {})]) is None
    words = (await store_backend.redis("HGET", keys.record(KEY), "about")).split(b" ")
    words[3] = str(MAX_TRIES - 1).encode()
    await store_backend.redis("HSET", keys.record(KEY), "about", b" ".join(words))
    await store_backend.redis("XADD", keys.jobs, "*", "member", name_of(KEY))
    [job] = await store_backend.jobs("w2")
    with pytest.raises(LastTry):
        await store_backend.queue.claim(job, "w2", alone=False)
    assert await store_backend.redis("EXISTS", beside(keys, "unserved")) == 0
    assert await store_backend.queue.unserved_jobs(keys.partition, "w3", [OFFER], 9) == []
    assert float(await store_backend.redis("ZSCORE", beside(keys, "waiting"), name_of(KEY))) == (
        float("inf")
    )
