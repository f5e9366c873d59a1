"""Steps that settle: when their inputs first appeared, who waits for them, what was stopped."""

from __future__ import annotations

from dataclasses import replace

from headstart_service.domain import (
    ALL_STEPS,
    Awaited,
    Awaits,
    RunKey,
    RunPlan,
    Status,
    StepRecord,
    StepState,
    StepWork,
)
from tests.contract.backend import TTL, Backend, done, plan

KEY = RunKey("games", "typed")
STEPS = {"first": "f1", "second": "s1"}


def settling(*names: str, digest: str = "d1", **digests: str) -> RunPlan:
    return replace(plan(digest, STEPS | digests), settling=names)


async def test_a_step_settles_from_when_its_digest_first_appeared(store_backend: Backend) -> None:
    await store_backend.start(KEY, settling("first", "second"))
    before = (await store_backend.claim()).since
    assert before.keys() == {"first", "second"}
    for number in range(2, 4):
        await store_backend.start(KEY, settling("first", "second", digest=f"d{number}", first="f2"))
        after = await store_backend.claim()
    assert after.since["second"] == before["second"]
    assert before["first"] < after.since["first"] <= after.at_us
    # Started again, it is the same run. Claimed again after a lost worker, too.
    await store_backend.start(KEY, settling("first", "second", digest="d3", first="f2"))
    await store_backend.queue.release(after.lease)
    assert (await store_backend.claim()).since == after.since


async def test_a_step_that_did_without_a_need_need_not_settle_again(store_backend: Backend) -> None:
    elsewhere = {"pools": {"second": "gpu"}}
    await store_backend.start(KEY, replace(settling("first", "second"), **elsewhere))
    claim = await store_backend.claim()
    degraded = [replace(done(name), degraded=True) for name in STEPS]
    await store_backend.queue.commit(claim.lease, degraded, [])
    await store_backend.queue.commit(claim.lease, degraded, [])
    more = settling("first", "second", digest="d2", third="t1")
    await store_backend.start(KEY, replace(more, **elsewhere))
    again = await store_backend.claim()
    assert (again.since, again.ended) == (claim.since, {})


async def test_what_an_ended_run_had_is_as_old_as_that_run(store_backend: Backend) -> None:
    await store_backend.start(KEY, settling("second"))
    claim = await store_backend.claim()
    await store_backend.queue.finish(claim.lease, [done("first")], Status.CANCELLED, "")
    created = (await store_backend.store.status(KEY)).summary.created_us
    assert not {b"since", b"awaited"} & (await store_backend.record(KEY)).keys()
    await store_backend.start(KEY, settling("second", digest="d2", first="f2"))
    assert (await store_backend.claim()).since == {"second": created}


async def test_a_run_whose_steps_begin_at_once_keeps_nothing(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await store_backend.store.read(KEY, awaits=Awaits.END, required={ALL_STEPS})
    assert not {b"since", b"awaited"} & (await store_backend.record(KEY)).keys()


async def test_the_worker_learns_for_which_steps_callers_wait(store_backend: Backend) -> None:
    store, queue = store_backend.store, store_backend.queue
    await store_backend.start(KEY, settling("first"))
    await store.read(KEY, awaits=Awaits.CHANGES)
    await store.read(KEY, awaits=Awaits.STEPS, required={"second", "unknown"})
    async with queue.withdrawals() as heard:
        claim = await store_backend.claim()
        assert claim.awaited == {"second"}
        await store.read(KEY, awaits=Awaits.STEPS, required={"second"})
        await store.read(KEY, awaits=Awaits.STEPS, required={"first"})
        await store.read(KEY, awaits=Awaits.END, required={ALL_STEPS})
        await store.read(KEY, awaits=Awaits.STEPS, required={"second"})
        run = claim.lease.job.run
        assert await anext(heard) == Awaited(KEY, run, ("first",))
        assert await anext(heard) == Awaited(KEY, run, (ALL_STEPS,))
    await queue.release(claim.lease)
    assert (await store_backend.claim()).awaited == {"second", "first", ALL_STEPS}
    # In the next revision callers wait still for what is the same there.
    await store_backend.start(KEY, settling("first", digest="d2", first="f2"))
    assert (await store_backend.claim()).awaited == {"second"}
    await store_backend.start(KEY, settling("first", digest="d3", first="f3", second="s3"))
    assert (await store_backend.claim()).awaited == frozenset()


async def test_the_worker_learns_of_callers_that_come_before_the_need(
    store_backend: Backend,
) -> None:
    store, queue = store_backend.store, store_backend.queue
    await store.start(KEY, plan("d1", STEPS), TTL, restart=False, needed_in=600.0)
    async with queue.withdrawals() as heard:
        claim = await store_backend.claim()
        assert (claim.awaited, claim.needed_us > claim.at_us) == (frozenset(), True)
        await store.read(KEY, awaits=Awaits.CHANGES)
        await store.read(KEY)
        await store.read(KEY, awaits=Awaits.STEPS, required={"second"})
        await store.read(KEY, awaits=Awaits.STEPS, required={"second"})
        await store.read(KEY, awaits=Awaits.END, required={ALL_STEPS})
        run = claim.lease.job.run
        assert await anext(heard) == Awaited(KEY, run, ("second",))
        assert await anext(heard) == Awaited(KEY, run, (ALL_STEPS,))
    await queue.release(claim.lease)
    again = await store_backend.claim()
    assert again.awaited == {"second", ALL_STEPS}
    # A start that joins it moves it forward, never back.
    other = RunKey("games", "joined")
    needs = (600.0, 600.0, 900.0, 599.0, 300.0, None)
    async with queue.withdrawals() as heard:
        for number, needed_in in enumerate(needs):
            await store.start(other, plan(), TTL, restart=False, needed_in=needed_in)
            awaited = (await store_backend.record(other)).get(b"awaited")
            assert awaited == (b"*" if number >= 4 else None)
            if not number:
                run = (await store_backend.claim()).lease.job.run
        assert await anext(heard) == Awaited(other, run, (ALL_STEPS,))
    # A replaced run's caller waits still. A run without a need of its own has nothing to hurry.
    await store.start(KEY, plan("d2", STEPS | {"first": "f2"}), TTL, restart=False, needed_in=600.0)
    assert (await store_backend.claim()).awaited == {"second"}
    other = RunKey("games", "at once")
    for needed_in in (None, 0.0):
        await store.start(other, plan(), TTL, restart=True, needed_in=needed_in)
        await store_backend.claim()
        await store.read(other, awaits=Awaits.END, required={ALL_STEPS})
        assert b"awaited" not in await store_backend.record(other)


async def test_stopped_work_counts_under_the_fate_of_its_run(store_backend: Backend) -> None:
    queue, store = store_backend.queue, store_backend.store
    stopped = StepRecord("second", StepState.FAILED, b"", StepWork(2.0, 0.5, 7))

    async def tokens() -> dict[str, int]:
        ledger = (await store.stats("games")).ledger
        assert ledger is not None
        return {fate: work.llm_tokens for fate, work in ledger.fates.items() if work.llm_tokens}

    lease = (await store_backend.begin(KEY)).lease
    await queue.count_stopped(lease, stopped)
    assert await tokens() == {}, "another worker may go on with it"
    await store_backend.start(KEY, plan("d2"))
    await queue.count_stopped(lease, stopped)
    assert await tokens() == {"replaced": 7}
    lease = (await store_backend.claim()).lease
    await store.cancel(KEY)
    await queue.count_stopped(lease, stopped)
    await store.delete(KEY)
    await queue.count_stopped(lease, stopped)
    assert await tokens() == {"replaced": 7, "cancelled": 14}
    other = RunKey("games", "failed")
    await store_backend.start(other, ttl=TTL)
    lease = (await store_backend.claim()).lease
    await queue.finish(lease, [], Status.FAILED, "no")
    await queue.count_stopped(lease, stopped)
    assert await tokens() == {"replaced": 7, "cancelled": 14, "failed": 7}
