from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from headstart_service.domain import Claim, FailureReason, RunKey, Status, StepState
from headstart_service.domain.errors import LastTry, LeaseLost
from headstart_service.store.connect import Client
from headstart_service.store.job_queue import MAX_TRIES, RedisJobQueue
from headstart_service.store.keys import GROUP
from tests.contract.backend import Backend, Repeating, done, plan, running
from tests.support.waiting import REDIS_TICK, wait_until

KEY = RunKey("games", "game-1")
LEASE = 0.3


async def _reclaim(backend: Backend, worker: str) -> Claim | None:
    """Take over the only job that is delivered, as if its lease had run out."""
    at_once = backend.new_queue(lease=0)
    partition = backend.keys_of(KEY).partition
    [job] = await at_once.lost_jobs(partition, worker, 10)
    return await at_once.claim(job, worker)


async def _lost(backend: Backend, queue: RedisJobQueue, worker: str = "w2") -> list[RunKey]:
    partition = backend.keys_of(KEY).partition
    return [job.key for job in await queue.lost_jobs(partition, worker, 10)]


async def test_a_claim_names_what_to_run(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    wanted = plan()
    assert (claim.pipeline, claim.inputs, claim.revision) == (wanted.pipeline, wanted.inputs, 1)
    assert claim.lease.job.key == KEY
    assert claim.ended == {}
    summary = (await store_backend.store.status(KEY)).summary
    assert summary.status is Status.IN_PROGRESS
    assert summary.started_us >= summary.created_us


async def test_every_claim_raises_the_attempt(store_backend: Backend) -> None:
    first = await store_backend.begin(KEY)
    second = await _reclaim(store_backend, "w2")
    assert second is not None
    assert second.lease.attempt > first.lease.attempt
    assert second.lease.job.run == first.lease.job.run


async def test_a_reclaimed_run_keeps_when_it_was_first_started(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY)
    before = (await store_backend.store.status(KEY)).summary.started_us
    await _reclaim(store_backend, "w2")
    assert (await store_backend.store.status(KEY)).summary.started_us == before


async def test_a_reclaimed_run_has_no_step_running_that_nobody_runs(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    again = await _reclaim(store_backend, "w2")
    assert again is not None
    assert again.ended == {"first": done("first")}
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": StepState.COMPLETED, "second": StepState.PENDING}
    assert found.body == b"<first>"


async def test_a_job_is_claimed_by_none_but_the_worker_it_was_delivered_to(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    [job] = await store_backend.jobs("w1")
    before = store_backend.deployment.dump()
    assert await store_backend.queue.claim(job, "w2") is None
    assert store_backend.deployment.dump() == before
    assert await store_backend.queue.claim(job, "w1") is not None


async def test_a_job_is_delivered_to_one_worker_only(store_backend: Backend) -> None:
    keys = [RunKey("games", f"game-{number}") for number in range(20)]
    for key in keys:
        await store_backend.start(key)
    workers = [f"w{number}" for number in range(5)]
    delivered = await asyncio.gather(*(store_backend.jobs(worker, 3) for worker in workers))
    delivered.append(await store_backend.jobs("last"))
    taken = [job.key for jobs in delivered for job in jobs]
    assert sorted(map(str, taken)) == sorted(map(str, keys))


async def test_a_worker_waits_for_a_job_and_gets_it_at_once(store_backend: Backend) -> None:
    await store_backend.queue.prepare_queue()
    partition = store_backend.keys_of(KEY).partition
    waiting = asyncio.create_task(store_backend.queue.next_jobs(partition, "w1", 1, 20))
    await wait_until(lambda: _someone_is_blocked(store_backend))
    await store_backend.start(KEY)
    async with asyncio.timeout(15):  # less than the twenty that it may block
        [job] = await waiting
    assert job.key == KEY


async def _someone_is_blocked(backend: Backend) -> bool:
    return bool(backend.deployment.info("clients", "blocked_clients"))


async def test_no_job_after_the_wait_is_no_error(store_backend: Backend) -> None:
    await store_backend.queue.prepare_queue()
    assert await store_backend.queue.next_jobs(0, "w1", 1, 0.01) == []


@pytest.mark.parametrize("what", ["cancelled", "replaced"])
async def test_the_job_of_a_run_that_is_not_wanted_any_more_is_dropped(
    store_backend: Backend, what: str
) -> None:
    await store_backend.start(KEY)
    [job] = await store_backend.jobs()
    if what == "cancelled":
        await store_backend.store.cancel(KEY)
    else:
        await store_backend.start(KEY, plan("d2"))
    record = await store_backend.record(KEY)
    if what == "replaced":
        claim = await store_backend.queue.claim(job, "w1")
        assert claim is not None
        assert (claim.lease.job.entry, claim.revision) == (job.entry, 2)
        record = await store_backend.record(KEY)
        [job] = await store_backend.jobs()  # which that start had brought
    assert await store_backend.queue.claim(job, "w1") is None
    assert await store_backend.record(KEY) == record
    left = [KEY] if what == "replaced" else []
    assert await _lost(store_backend, store_backend.new_queue(lease=0)) == left


async def test_cancelling_a_run_in_progress_takes_its_job_off_the_queue(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY)
    assert (await store_backend.store.cancel(KEY)).cancelled
    cancelled = (await store_backend.store.status(KEY)).summary
    assert cancelled.failure_reason is FailureReason.CANCELLED
    assert await _lost(store_backend, store_backend.new_queue(lease=0)) == []
    assert await store_backend.redis("XLEN", store_backend.keys_of(KEY).jobs) == 0


async def test_a_run_whose_workers_were_lost_three_times_fails(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    for number in range(2, MAX_TRIES + 1):
        assert await _reclaim(store_backend, f"w{number}") is not None
    assert await _reclaim(store_backend, "one too many") is None
    found = await store_backend.store.read(KEY)
    assert (found.summary.status, found.summary.error) == (
        Status.FAILED,
        "worker lost: in each try it ended, was blocked or lost Redis",
    )
    assert found.summary.failure_reason is FailureReason.WORKER_LOST
    assert found.states == {"first": StepState.COMPLETED, "second": StepState.PENDING}
    assert found.body == b"<first>"
    assert await store_backend.pttl(KEY) <= 60.001
    assert await _lost(store_backend, store_backend.new_queue(lease=0)) == []
    assert MAX_TRIES == 3


async def test_jobs_are_lost_after_the_lease_and_not_before(store_backend: Backend) -> None:
    queue = store_backend.new_queue(lease=LEASE)
    asked = time.monotonic()
    await store_backend.begin(KEY)

    async def lost(worker: str) -> list[RunKey]:
        nonlocal asked
        began = time.monotonic()
        found = await _lost(store_backend, queue, worker)
        if found:
            assert time.monotonic() - asked >= LEASE - REDIS_TICK
            asked = began  # the earliest moment at which the new lease can have begun
        return found

    assert await wait_until(lambda: lost("w2")) == [KEY]
    # Its new owner has a whole lease to claim it.
    assert await wait_until(lambda: lost("w3")) == [KEY]


async def test_a_lost_job_is_found_behind_many_that_are_not_lost(store_backend: Backend) -> None:
    """Redis looks at ten entries for each job asked for; the rest is for the next call."""
    keys = store_backend.neighbours(60)
    for key in keys:
        await store_backend.start(key)
    jobs = await store_backend.jobs()
    queue = store_backend.new_queue(lease=30)
    names = store_backend.keys_of(keys[0])
    await store_backend.redis(
        "XCLAIM", names.jobs, "workers", "w1", 0, jobs[-1].entry, "IDLE", 60_000
    )
    [lost] = await queue.lost_jobs(names.partition, "w2", 2)
    assert lost.key == keys[-1]


async def test_no_more_lost_jobs_are_taken_than_asked_for(store_backend: Backend) -> None:
    keys = store_backend.neighbours(10)
    for key in keys:
        await store_backend.start(key)
    await store_backend.jobs()
    at_once = store_backend.new_queue(lease=0)
    assert len(await at_once.lost_jobs(store_backend.keys_of(keys[0]).partition, "w2", 3)) == 3


async def test_renewing_keeps_others_from_reclaiming(store_backend: Backend) -> None:
    queue = store_backend.new_queue(lease=LEASE)
    claim = await store_backend.begin(KEY)
    began = time.monotonic()
    while time.monotonic() - began < LEASE * 2:
        renewed = time.monotonic()
        assert await queue.renew([claim.lease], "w1") == []
        if await _lost(store_backend, queue):
            # A machine so busy that the lease ran out between the two says nothing.
            assert time.monotonic() - renewed > LEASE - REDIS_TICK
            return


async def test_renewing_keeps_the_record_alive(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.redis("PEXPIRE", store_backend.keys_of(KEY).record(KEY), 9000)
    assert await store_backend.queue.renew([claim.lease], "w1") == []
    assert await store_backend.pttl(KEY) > 1000


async def test_renewing_takes_back_a_job_that_was_reclaimed_but_not_claimed(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    [job] = await store_backend.new_queue(lease=0).lost_jobs(claim.lease.job.partition, "w2", 1)
    assert await store_backend.queue.renew([claim.lease], "w1") == []
    assert await store_backend.queue.claim(job, "w2") is None
    await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")


async def test_only_the_leases_that_do_not_hold_any_more_come_back(store_backend: Backend) -> None:
    keys = [RunKey("games", f"game-{number}") for number in range(4)]
    claims = [await store_backend.begin(key) for key in keys]
    await store_backend.store.cancel(keys[0])
    await store_backend.start(keys[1], plan("d2"))
    await store_backend.queue.finish(claims[2].lease, [], Status.COMPLETED, "")
    leases = [claim.lease for claim in claims]
    assert await store_backend.queue.renew(leases, "w1") == leases[:3]
    assert await store_backend.queue.renew([], "w1") == []


async def test_renewing_a_hundred_leases_at_once_needs_no_hundred_connections(
    store_backend: Backend,
) -> None:
    keys = [RunKey("games", f"game-{number}") for number in range(100)]
    for key in keys:
        await store_backend.start(key)
    claims = [await store_backend.queue.claim(job, "w1") for job in await store_backend.jobs()]
    leases = [claim.lease for claim in claims if claim]
    assert len(leases) == 100
    assert await store_backend.queue.renew(leases, "w1") == []


async def test_releasing_hands_on_what_was_committed_and_is_no_try(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    for number in range(MAX_TRIES * 2):
        await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
        await store_backend.queue.release(claim.lease)
        found = await store_backend.store.read(KEY)
        assert found.summary.status is Status.PENDING
        assert found.states == {"first": StepState.COMPLETED, "second": StepState.PENDING}
        claim = await store_backend.claim(f"w{number}")
        assert claim.ended == {"first": done("first")}
    await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
    assert (await store_backend.store.read(KEY)).body == b"<first><second>"


async def test_a_released_lease_holds_no_more(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.release(claim.lease)
    with pytest.raises(LeaseLost):
        await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)  # once more does nothing
    assert await _lost(store_backend, store_backend.new_queue(lease=0)) == []
    assert len(await store_backend.jobs("w2")) == 1


async def test_leaving_puts_back_what_was_delivered_and_not_claimed(
    store_backend: Backend,
) -> None:
    keys = [RunKey("games", f"game-{number}") for number in range(10)]
    for key in keys:
        await store_backend.start(key)
    jobs = await store_backend.jobs("w1")
    await store_backend.queue.deregister("w1")
    again = await store_backend.jobs("w2")
    assert {(job.key, job.run) for job in again} == {(job.key, job.run) for job in jobs}
    assert await store_backend.queue.claim(jobs[0], "w1") is None
    for job in again:
        assert await store_backend.queue.claim(job, "w2") is not None


async def test_a_job_that_was_handed_on_twice_still_names_its_run(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.release(claim.lease)
    for worker in ("w2", "w3"):
        [job] = await store_backend.jobs(worker)
        assert job.run == claim.lease.job.run
        await store_backend.queue.deregister(worker)
    again = await store_backend.claim("w4")
    assert again.lease.job.run == claim.lease.job.run


async def test_leaving_takes_nothing_from_others_and_may_be_repeated(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    for _ in range(2):
        await store_backend.queue.deregister("w2")
    assert await store_backend.jobs("w3") == []
    await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")


async def test_a_worker_that_left_is_no_consumer_any_more(store_backend: Backend) -> None:
    await store_backend.begin(KEY, "w1")
    await store_backend.queue.deregister("w1")
    names = store_backend.keys_of(KEY)
    consumers = await store_backend.raw.xinfo_consumers(names.jobs, "workers")
    assert b"w1" not in [consumer["name"] for consumer in consumers]


async def test_preparing_forgets_workers_that_went_without_a_word_and_hold_nothing(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY, "holds a job")
    await store_backend.jobs("has gone")
    names = store_backend.keys_of(KEY)
    queue = store_backend.new_queue(idle=0)

    async def left() -> list[bytes]:
        await queue.prepare_queue()
        consumers = await store_backend.raw.xinfo_consumers(names.jobs, "workers")
        return [consumer["name"] for consumer in consumers]

    async def only_the_busy() -> bool:
        return await left() == [b"holds a job"]

    await wait_until(only_the_busy)


async def test_a_claim_that_is_repeated_is_one_try(
    store_backend: Backend,
) -> None:
    """A Redis that hung gets all that was sent to it meanwhile, several times."""
    await store_backend.start(KEY)
    [job] = await store_backend.jobs()
    client = cast("Client", Repeating(store_backend.raw, MAX_TRIES + 1))
    queue = store_backend.new_queue(client=client)
    claim = await queue.claim(job, "w1")
    assert claim is not None
    assert claim.lease.attempt == 1
    assert (await store_backend.record(KEY))[b"tries"] == b"1"
    await queue.finish(claim.lease, [done("first"), done("second")], Status.COMPLETED, "")
    assert b"claim" not in await store_backend.record(KEY)


async def test_a_last_try_is_for_a_worker_that_has_nothing_beside_it(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY)
    for number in range(MAX_TRIES - 2):
        assert await _reclaim(store_backend, f"w{number + 2}") is not None
    at_once = store_backend.new_queue(lease=0)
    [job] = await at_once.lost_jobs(store_backend.keys_of(KEY).partition, "w9", 10)
    with pytest.raises(LastTry):
        await at_once.claim(job, "w9", alone=False)
    claim = await at_once.claim(job, "w9", alone=True)
    assert claim is not None
    assert claim.lease.attempt == MAX_TRIES


async def test_a_lease_begins_with_the_claim_however_late_that_comes(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    [job] = await store_backend.jobs()
    jobs = store_backend.keys_of(KEY).jobs

    async def idle() -> int:
        [entry] = await store_backend.raw.xpending_range(jobs, GROUP, "-", "+", 10)
        return int(entry["time_since_delivered"])

    async def is_late() -> bool:
        return await idle() > 1000

    await wait_until(is_late)
    assert await store_backend.queue.claim(job, "w1") is not None
    assert await idle() < 1000


async def test_a_worker_keeps_a_last_try_while_it_ends_what_it_has_beside_it(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY)
    for number in range(MAX_TRIES - 2):
        assert await _reclaim(store_backend, f"w{number + 2}") is not None
    names = store_backend.keys_of(KEY)
    [job] = await store_backend.new_queue(lease=0).lost_jobs(names.partition, "w9", 10)

    async def idle() -> int:
        [entry] = await store_backend.raw.xpending_range(names.jobs, GROUP, "-", "+", 10)
        return int(entry["time_since_delivered"])

    for _ in range(2):

        async def is_late() -> bool:
            return await idle() > 500

        await wait_until(is_late)
        with pytest.raises(LastTry):
            await store_backend.queue.claim(job, "w9", alone=False)
        assert await idle() < 500
    assert await store_backend.queue.claim(job, "w8", alone=False) is None
    assert await store_backend.queue.claim(job, "w9", alone=True) is not None
