"""Which run a claim takes: the one that is needed first, of those that can still be in time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from headstart_service.domain import Awaits, Claim, FailureReason, Outcome, RunKey, Status
from headstart_service.domain.errors import CapacityExhausted, LastTry
from headstart_service.store.job_queue import MAX_TRIES
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend, first_of, plan
from tests.contract.beside import stand

MINUTE = 60.0
SHED = "shed: could not be ready by the time it was needed"


async def start(store: RedisStore, key: RunKey, needed_in: float | None = None) -> Outcome:
    return (await store.start(key, plan(), 1800, restart=False, needed_in=needed_in)).outcome


async def claims(backend: Backend, worker: str = "w1") -> list[Claim]:
    """All that is queued, claimed in this order."""
    found = [await backend.queue.claim(job, worker) for job in await backend.jobs(worker)]
    return [claim for claim in found if claim]


async def order(backend: Backend) -> list[RunKey]:
    return [claim.lease.job.key for claim in await claims(backend)]


def takes(backend: Backend, seconds: float) -> None:
    """Let it be known that runs take so long."""
    backend.expected = {"other": 1, "probe": round(seconds * 1e6)}


async def test_what_is_needed_first_is_claimed_first(store_backend: Backend) -> None:
    late, soon, now, later_now = store_backend.neighbours(4)
    for key, need in ((late, 2 * MINUTE), (soon, MINUTE), (now, None), (later_now, None)):
        await start(store_backend.store, key, need)
    assert await order(store_backend) == [now, later_now, soon, late]


async def test_those_that_said_nothing_are_served_in_their_order(store_backend: Backend) -> None:
    keys = store_backend.neighbours(12)[::-1]
    for key in keys:
        await start(store_backend.store, key)
    assert await order(store_backend) == keys


async def test_in_the_order_of_arrival_no_need_counts(store_backend: Backend) -> None:
    rules = store_backend.rules()
    store = RedisStore(
        store_backend.raw,
        type(rules)(partitions=rules.partitions, max_records=100, failure_ttl=60, by_need=False),
        budget=10,
        connections=3,
    )
    keys = store_backend.neighbours(3)
    for key, need in zip(keys, (2 * MINUTE, MINUTE, None), strict=True):
        await start(store, key, need)
    await store.read(keys[2], awaits=Awaits.END)
    assert await order(store_backend) == keys


async def test_who_joins_moves_a_run_forward_and_never_back(store_backend: Backend) -> None:
    first, second, third = store_backend.neighbours(3)
    for key, need in ((first, 3.0), (second, 2.0), (third, 4.0)):
        await start(store_backend.store, key, need * MINUTE)
    assert await start(store_backend.store, third, MINUTE) is Outcome.JOINED
    assert await start(store_backend.store, second, 9 * MINUTE) is Outcome.JOINED
    assert await order(store_backend) == [third, second, first]


async def test_what_is_waited_for_goes_before_all_else_in_the_order_of_the_waits(
    store_backend: Backend,
) -> None:
    store = store_backend.store
    now, soon, late = store_backend.neighbours(3)
    for key, need in ((now, None), (soon, MINUTE), (late, 2 * MINUTE)):
        await start(store, key, need)
    await store.read(now)  # who does not wait promotes nothing
    for key in (late, soon, late):
        await store.read(key, awaits=Awaits.END)
    assert await order(store_backend) == [late, soon, now]


async def test_a_pending_run_reports_how_many_are_before_it(store_backend: Backend) -> None:
    first, second = store_backend.neighbours(2)
    await start(store_backend.store, first)
    await start(store_backend.store, second)
    assert (await store_backend.store.read(second)).ahead == 1
    assert (await store_backend.store.read(second, awaits=Awaits.END)).ahead == 0
    await claims(store_backend)
    assert (await store_backend.store.read(second)).ahead is None


async def test_a_run_that_is_handed_on_keeps_its_place(store_backend: Backend) -> None:
    urgent, other = store_backend.neighbours(2)
    await start(store_backend.store, urgent, MINUTE)
    [claim] = await claims(store_backend)
    await start(store_backend.store, other, 2 * MINUTE)
    await store_backend.queue.release(claim.lease)
    assert await order(store_backend) == [urgent, other]


async def test_a_lost_run_is_named_to_who_takes_it_over(store_backend: Backend) -> None:
    """Though the ticket that it was claimed with was brought by another."""
    brought, urgent = store_backend.neighbours(2)
    await start(store_backend.store, brought, MINUTE)
    await start(store_backend.store, urgent)
    job, _ = await store_backend.jobs("w1")
    assert job.key == brought
    claim = await store_backend.queue.claim(job, "w1")
    assert claim is not None
    assert claim.lease.job.key == urgent
    at_once = store_backend.new_queue(lease=0)
    lost = await at_once.lost_jobs(claim.lease.job.partition, "w2", 10)
    assert [each.key for each in lost if each.entry == job.entry] == [urgent]
    again = await at_once.claim(next(j for j in lost if j.entry == job.entry), "w2")
    assert again is not None
    assert (again.lease.job.key, again.lease.attempt) == (urgent, 2)


async def test_what_is_too_late_is_left_for_later_unless_somebody_waits(
    store_backend: Backend,
) -> None:
    takes(store_backend, 90)
    late, awaited, in_time, undeclared = store_backend.neighbours(4)
    for key, need in ((late, 5.0), (awaited, MINUTE), (in_time, 9 * MINUTE), (undeclared, None)):
        await start(store_backend.store, key, need)
    await store_backend.store.read(awaited, awaits=Awaits.END)
    assert await order(store_backend) == [awaited, undeclared, in_time, late]


async def test_when_the_queue_is_full_what_is_too_late_is_shed(store_backend: Backend) -> None:
    store = store_backend.new_store(max_live=3 * store_backend.partitions)
    takes(store_backend, 90)
    in_time, late, undeclared, newcomer, one_more = store_backend.neighbours(5)
    for key, need in ((in_time, 9 * MINUTE), (late, MINUTE), (undeclared, None)):
        await start(store, key, need)
    async with store_backend.announcements() as heard:
        assert await start(store, newcomer) is Outcome.STARTED
        await first_of("ended", heard)
    shed = (await store.read(late)).summary
    assert (shed.status, shed.error) == (Status.FAILED, SHED)
    assert shed.failure_reason is FailureReason.SHED
    assert await store_backend.pttl(late) <= 60.001
    before = store_backend.deployment.dump()
    with pytest.raises(CapacityExhausted, match="queue is full"):
        await start(store, one_more)
    assert store_backend.deployment.dump() == before
    assert await order(store_backend) == [undeclared, newcomer, in_time]


async def test_what_was_passed_over_is_shed_first_and_what_is_waited_for_never(
    store_backend: Backend,
) -> None:
    takes(store_backend, 90)
    store = store_backend.new_store(max_live=3 * store_backend.partitions)
    passed, awaited, taken, newcomer, refused = store_backend.neighbours(5)
    for key, need in ((passed, 50.0), (awaited, 40.0), (taken, None)):
        await start(store, key, need)
    await store.read(awaited, awaits=Awaits.END)
    first, second, *_ = await store_backend.jobs()
    for job in (first, second):
        assert await store_backend.queue.claim(job, "w1")  # the awaited, and what is not too late
    await start(store, newcomer)
    assert (await store.read(passed)).summary.error == SHED
    with pytest.raises(CapacityExhausted):
        await start(store, refused)


async def test_nobody_sheds_the_run_of_another_namespace(store_backend: Backend) -> None:
    store = store_backend.new_store(max_live=2 * store_backend.partitions)
    takes(store_backend, 90)
    (late,) = store_backend.neighbours(1, namespace="game")  # a beginning of the other's name
    first, own, refused = store_backend.neighbours(3)
    await start(store, late, MINUTE)
    await start(store, first, MINUTE)
    await start(store, own)
    assert (await store.read(first)).summary.error == SHED
    with pytest.raises(CapacityExhausted):
        await start(store, refused)
    assert (await store.read(late)).summary.status is Status.PENDING


async def test_a_shed_run_can_be_started_again(store_backend: Backend) -> None:
    store = store_backend.new_store(max_live=1 * store_backend.partitions)
    takes(store_backend, 90)
    late, newcomer = store_backend.neighbours(2)
    await start(store, late, 1.0)
    await start(store, newcomer)
    [claim] = await claims(store_backend)
    await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
    assert (await store.start(late, plan(), 60, restart=False)).revision == 2
    assert await order(store_backend) == [late]


async def test_a_run_that_is_needed_in_days_waits_for_days(store_backend: Backend) -> None:
    [key] = store_backend.neighbours(1)
    await start(store_backend.store, key, 3 * 86400.0)
    assert await store_backend.pttl(key) > 3 * 86400


async def test_a_last_try_stays_with_the_worker_that_is_to_have_nothing_beside_it(
    store_backend: Backend,
) -> None:
    fatal, other = store_backend.neighbours(2)
    partition = store_backend.keys_of(fatal).partition
    await start(store_backend.store, fatal)
    at_once = store_backend.new_queue(lease=0)
    claim: Claim | None
    [claim] = await claims(store_backend)
    for number in range(MAX_TRIES - 2):
        [job] = await at_once.lost_jobs(partition, f"w{number}", 1)
        claim = await at_once.claim(job, f"w{number}")
    assert claim is not None
    await _forget_claims(store_backend, [fatal])
    await start(store_backend.store, other)
    first, second = await store_backend.jobs("w8")
    with pytest.raises(LastTry):
        await store_backend.queue.claim(first, "w8", alone=False)
    elsewhere = await store_backend.queue.claim(second, "w8", alone=False)
    assert elsewhere is not None
    assert elsewhere.lease.job.key == other
    alone = await store_backend.queue.claim(first, "w8", alone=True)
    assert alone is not None
    assert alone.lease.job.key == fatal


async def _forget_claims(backend: Backend, keys: Sequence[RunKey]) -> None:
    """Make these pending again, with the tries that they have had."""
    for key in keys:
        names = backend.keys_of(key)
        [job] = await backend.new_queue(lease=0).lost_jobs(names.partition, "w7", 1)
        await backend.scripts.drop(names, None, entry=job.entry)
        words = (await backend.redis("HGET", names.record(key), "about")).split(b" ")
        await backend.redis("HSET", names.record(key), "about", b" ".join([b"pending", *words[1:]]))
        member = f"{key.namespace}:{key.key}"
        await backend.redis("ZREM", names.fixed[5], member)
        await backend.redis("ZADD", names.fixed[4], 0, member)
        await stand(backend, key, (round(time.time()) - 10) * 1_000_000)
        await backend.redis("XADD", names.jobs, "*", "member", member)


async def test_a_run_whose_ticket_is_gone_gets_another(
    store_backend: Backend,
) -> None:
    first, second = store_backend.neighbours(2)
    names = store_backend.keys_of(first)
    await start(store_backend.store, first)
    await start(store_backend.store, second)
    for job in await store_backend.jobs():
        await store_backend.scripts.drop(names, None, entry=job.entry)
    assert await store_backend.jobs() == []
    for _ in range(3):
        await store_backend.queue.sweep()  # once is enough, and more brings no more
    jobs = await store_backend.jobs()
    assert len(jobs) == 2
    found = [await store_backend.queue.claim(job, "w1") for job in jobs]
    assert [claim and claim.lease.job.key for claim in found] == [first, second]


async def test_a_claim_brings_the_time_of_need_that_the_start_declared(
    store_backend: Backend,
) -> None:
    declared, awaited, undeclared = keys = [RunKey("games", name) for name in "abc"]
    store, found = store_backend.store, {}
    for key in keys:
        need = None if key is undeclared else MINUTE
        await start(store, key, need)
        if key is awaited:
            await store.read(key, awaits=Awaits.END)
        claim = await store_backend.claim()
        found[key] = claim.needed_us - claim.at_us if claim.needed_us else 0
        await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
    assert found[declared] == pytest.approx(MINUTE * 1e6, abs=10e6)
    assert found[awaited] == found[undeclared] == 0
