"""A step of another pool is computed by a step run, which its run alone sees the end of."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from headstart_service.domain import (
    Awaited,
    Awaits,
    Claim,
    ItemsChunk,
    KeptItems,
    Lack,
    Lease,
    Offer,
    Outcome,
    PartialForm,
    PartialWrite,
    PoolStats,
    RunKey,
    RunPlan,
    Status,
    StepRecord,
    StepState,
    UnservedStep,
)
from headstart_service.domain.errors import LeaseLost
from headstart_service.store.job_queue import MAX_TRIES
from headstart_service.store.retries import Retries
from headstart_service.store.step_runs import RedisStepRuns
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.upkeep import Upkeep
from tests.contract.backend import BUDGET, TTL, Backend, done, plan, running
from tests.contract.beside import beside, sweep
from tests.support.waiting import wait_until

PLAN = replace(plan(steps={"first": "f1", "second": "s1", "third": "t1"}), pools={"second": "gpu"})
"""`second` is in the pool gpu and needs `first`; `third` needs `second`."""
HOME = Offer("probe", "v1", {"third": "-*second"})
GPU = Offer("probe", "v1/gpu", {"second": "m1"})
OTHER_MODEL = Offer("probe", "v1/gpu", {"second": "m2"})
LOST = b"<lost>"
FIRST = done("first")


@pytest.fixture
async def step_runs(store_backend: Backend) -> AsyncIterator[RedisStepRuns]:
    found = RedisStepRuns(store_backend.raw, store_backend.rules(), budget=BUDGET)
    yield found
    await found.aclose()


async def begin(
    backend: Backend, key: RunKey, first: StepRecord = FIRST, needed_in: float | None = None
) -> Claim:
    """A claimed run whose first step has ended."""
    await backend.store.start(key, PLAN, TTL, restart=False, needed_in=needed_in)
    await backend.queue.prepare_queue()
    for partition in range(backend.partitions):
        await backend.queue.offer(partition, "w1", [HOME])
    [job] = await backend.jobs("w1")
    claim = await backend.queue.claim(job, "w1", [HOME])
    assert claim is not None
    await backend.queue.commit(claim.lease, [first], [running("third")])
    return claim


async def ask(step_runs: RedisStepRuns, lease: Lease, need: str = "first") -> bool:
    return await step_runs.has_ended(lease, "second", "s1", [need], LOST)


async def taken(backend: Backend, key: RunKey, offer: Offer = GPU, worker: str = "g1") -> Claim:
    """The claim of the only step run, by a worker of its pool."""
    partition = backend.all_keys.index(backend.keys_of(key))
    await backend.queue.offer(partition, worker, [offer])
    [job] = await backend.queue.unserved_jobs(partition, worker, [offer], 9)
    claim = await backend.queue.claim(job, worker, [offer])
    assert claim is not None
    return claim


async def sizes(backend: Backend, key: RunKey) -> tuple[int, ...]:
    """How many step runs are queued and run, in their pool and among all runs."""
    names = (
        "pool:gpu:pending",
        "pool:gpu:in_progress",
        "step_runs:pending",
        "step_runs:in_progress",
    )
    keys = backend.keys_of(key)
    return tuple([await backend.redis("ZCARD", beside(keys, name)) for name in names])


async def test_the_end_of_a_step_run_is_the_end_of_the_step(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    assert not await ask(step_runs, claim.lease)
    assert not await ask(step_runs, claim.lease)
    assert await sizes(store_backend, key) == (1, 0, 1, 0)
    stats = await store_backend.store.stats("")
    assert (stats.pending_step_runs, stats.running_step_runs) == (1, 0)
    assert (await store_backend.store.stats("others")).pending_step_runs == 0
    own = await taken(store_backend, key)
    assert own.lease.job.key == key.step_run("second")
    assert (own.step, own.pipeline, own.inputs) == ("second", "probe", claim.inputs)
    assert dict(own.ended) == {"first": done("first")}
    assert await sizes(store_backend, key) == (0, 1, 0, 1)

    # Nobody but operators of pools sees it.
    assert [run.key for run in await store_backend.store.list("", list(Status), None, 9)] == [key]
    stats = await store_backend.store.stats("")
    assert {status: n for status, n in stats.counts.items() if n} == {Status.IN_PROGRESS: 1}
    assert stats.pools["gpu"] == PoolStats(0, 1, 1)
    assert (stats.pending_step_runs, stats.running_step_runs) == (0, 1)
    assert stats.ledger is not None
    assert stats.ledger.starts == 1

    await store_backend.queue.commit(own.lease, [], [running("second")])
    states = (await store_backend.store.status(key)).states
    assert states["second"] is StepState.RUNNING
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    assert await sizes(store_backend, key) == (0, 0, 0, 0)
    assert await ask(step_runs, claim.lease)
    states = (await store_backend.store.status(key)).states
    assert states["second"] is StepState.COMPLETED
    await store_backend.queue.finish(claim.lease, [done("third")], Status.COMPLETED, "")
    again = await store_backend.store.start(key, PLAN, TTL, restart=False)
    assert again.outcome is Outcome.REUSED
    assert not (await sweep(store_backend, store_backend.keys_of(key)))[2]


async def test_a_step_run_goes_on_while_its_run_changes_hands(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    await store_backend.queue.release(claim.lease)
    with pytest.raises(LeaseLost):
        await ask(step_runs, claim.lease)
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    [job] = await store_backend.jobs("w2")
    second = await store_backend.queue.claim(job, "w2", [HOME])
    assert second is not None
    assert second.ended.keys() == {"first", "second"}


async def test_a_step_run_can_do_without_a_need_which_its_next_revision_makes_good(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key, replace(done("first"), state=StepState.FAILED))
    await ask(step_runs, claim.lease, "first")
    partition = store_backend.all_keys.index(store_backend.keys_of(key))
    await store_backend.queue.offer(partition, "g1", [GPU])
    [job] = await store_backend.queue.unserved_jobs(partition, "g1", [GPU], 9)
    assert await store_backend.queue.claim(job, "g1", [GPU]) is None, "it needs a value of first"

    await ask(step_runs, claim.lease, "?first")
    own = await taken(store_backend, key)
    assert own.ended == {}
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    assert (await store_backend.store.status(key)).states["second"] is StepState.COMPLETED
    more = replace(PLAN, digest="d2", steps={**PLAN.steps, "more": "m1"})
    await store_backend.store.start(key, more, TTL, restart=False)
    [job] = await store_backend.jobs("w2")
    again = await store_backend.queue.claim(job, "w2", [HOME])
    assert again is not None
    assert again.ended == {}
    await store_backend.queue.commit(again.lease, [done("first")], [])
    assert not await ask(step_runs, again.lease, "?first")
    own = await taken(store_backend, key)
    assert own.ended.keys() == {"first"}


async def test_items_of_a_step_run_are_those_of_its_run_until_it_ends(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await store_backend.queue.keep_items(claim.lease, ItemsChunk("third", "t", 1, b"<3>", b""))
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    kept = ItemsChunk("second", "b1", 1, b"<items>", b"<1 so far>")
    async with store_backend.announcements() as heard:
        assert await store_backend.queue.keep_items(own.lease, kept)
        assert (await anext(heard)).key == key
    found = await store_backend.store.read(key)
    assert found.running["second"] == b"<1 so far>"
    assert b"<items>" in found.body

    await store_backend.queue.release(own.lease)
    own = await taken(store_backend, key, worker="g2")
    assert own.items == {"second": KeptItems("b1", 1, b"<items>")}
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    assert b"<items>" not in (await store_backend.store.read(key)).body
    with pytest.raises(LeaseLost):
        await store_backend.queue.keep_items(own.lease, kept)


Withdraw = Callable[[Backend, RunKey], Awaitable[object]]


@pytest.mark.parametrize(
    "withdraw",
    [
        lambda backend, key: backend.store.cancel(key),
        lambda backend, key: backend.store.delete(key),
        lambda backend, key: backend.store.start(key, PLAN, TTL, restart=True),
    ],
    ids=["cancel", "delete", "restart"],
)
async def test_a_step_run_ends_with_its_run(
    store_backend: Backend, step_runs: RedisStepRuns, withdraw: Withdraw
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    async with store_backend.queue.withdrawals() as withdrawals:
        await withdraw(store_backend, key)
        found = await anext(withdrawals)
        while getattr(found, "key", key) == key:
            found = await anext(withdrawals)
    assert (found.key, found.run) == (own.lease.job.key, own.lease.job.run)
    assert await sizes(store_backend, key) == (0, 0, 0, 0)
    with pytest.raises(LeaseLost):
        await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")


def edited(**steps: str) -> RunPlan:
    """The plan of other inputs, on which these steps depend."""
    digests = {**PLAN.steps, **steps}
    return replace(PLAN, digest="edited", steps=digests)


async def append(backend: Backend, claim: Claim, data: bytes, offset: int) -> int:
    write = PartialWrite("second", PartialForm.TEXT, 1, offset, data)
    return await backend.queue.append(claim.lease, write)


async def given(backend: Backend, key: RunKey) -> list[tuple[str, bytes, int]]:
    found = await backend.store.read_partials(key, {}, follow=False)
    return [(piece.step, piece.data, piece.generation) for piece in found.pieces]


async def test_a_step_run_goes_on_for_a_run_with_other_inputs_of_other_steps(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    assert await append(store_backend, own, b"one ", 0) == 4
    third = PartialWrite("third", PartialForm.TEXT, 1, 0, b"void")
    await store_backend.queue.append(claim.lease, third)
    [before] = [each for each in await given(store_backend, key) if each[0] == "second"]
    outcome = await store_backend.store.start(key, edited(third="t2"), TTL, restart=False)
    assert outcome.outcome is Outcome.REPLACED
    assert await given(store_backend, key) == [before], "a watcher goes on with its cursor"
    assert await append(store_backend, own, b"two", 4) == 7
    [job] = await store_backend.jobs("w2")
    second = await store_backend.queue.claim(job, "w2", [HOME])
    assert second is not None
    assert not await ask(step_runs, second.lease)
    assert await sizes(store_backend, key) == (0, 1, 0, 1)
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    assert await ask(step_runs, second.lease)
    assert await given(store_backend, key) == [("second", b"one two", before[2])]
    assert not (await sweep(store_backend, store_backend.keys_of(key)))[2]


@pytest.mark.parametrize("changed", [{"second": "s2"}, {"first": "f2"}], ids=["its own", "a need"])
async def test_a_step_run_whose_inputs_change_ends(
    store_backend: Backend, step_runs: RedisStepRuns, changed: dict[str, str]
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    await append(store_backend, own, b"one ", 0)
    await store_backend.store.start(key, edited(**changed), TTL, restart=False)
    assert await sizes(store_backend, key) == (0, 0, 0, 0)
    assert await given(store_backend, key) == []
    with pytest.raises(LeaseLost):
        await append(store_backend, own, b"two", 4)


async def test_a_worker_that_computes_a_step_itself_ends_its_step_run(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    await append(store_backend, own, b"one ", 0)
    await store_backend.queue.release(claim.lease)
    [job] = await store_backend.jobs("w2")
    both = await store_backend.queue.claim(job, "w2", [HOME, GPU])
    assert both is not None
    assert await sizes(store_backend, key) == (0, 0, 0, 0)
    assert await append(store_backend, both, b"anew", 0) == 4
    with pytest.raises(LeaseLost):
        await append(store_backend, own, b"two", 4)
    assert [data for _, data, _ in await given(store_backend, key)] == [b"anew"]


async def test_a_step_that_ends_its_workers_fails(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    own = await taken(store_backend, key)
    again: Claim | None = own
    for _ in range(MAX_TRIES):
        jobs = await store_backend.new_queue(lease=0).lost_jobs(own.lease.job.partition, "g2", 9)
        [job] = [job for job in jobs if job.key == own.lease.job.key]
        again = await store_backend.queue.claim(job, "g2", [GPU])
    assert again is None
    assert (await store_backend.record(key))[b"s:second"] == b"F" + LOST


async def test_a_value_of_another_model_of_the_pool_is_computed_anew(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    joined = await store_backend.store.start(key, PLAN, TTL, restart=False)
    assert joined.outcome is Outcome.JOINED
    own = await taken(store_backend, key)
    await store_backend.queue.finish(own.lease, [done("second")], Status.COMPLETED, "")
    await store_backend.queue.finish(claim.lease, [done("third")], Status.COMPLETED, "")
    partition = claim.lease.job.partition
    await store_backend.queue.offer(partition, "g1", [OTHER_MODEL])
    started = await store_backend.store.start(key, PLAN, TTL, restart=False)
    assert started.outcome is Outcome.STARTED
    snapshot = await store_backend.store.read(key)
    assert {n for n, s in snapshot.states.items() if s is StepState.COMPLETED} == {"first"}


async def test_a_step_without_a_worker_of_its_pool_says_so(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    store = store_backend.store
    seen = (await store.inspect(key)).snapshot
    for found in (await store.read(key), await store.status(key), seen):
        assert found.summary.unserved_steps == (UnservedStep("second", "gpu", Lack.POOL),)
    await store_backend.queue.offer(claim.lease.job.partition, "g1", [GPU])
    assert not (await store_backend.store.read(key)).summary.unserved_steps


async def test_a_step_waits_since_it_could_begin(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key, later] = store_backend.neighbours(2)
    claim = await begin(store_backend, key)
    await store_backend.start(later)  # the run began before

    async def longest(pool: str) -> float:
        return (await store_backend.store.stats("")).pools[pool].oldest_wait

    async def default_waits() -> bool:
        return await longest("default") > 0.1

    await wait_until(default_waits)
    began = time.monotonic()
    await ask(step_runs, claim.lease)
    found = await longest("gpu")
    assert 0 < found <= time.monotonic() - began


async def test_a_step_that_a_caller_waits_for_goes_first(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    keys = store_backend.neighbours(3)
    for key in keys:
        claim = await begin(store_backend, key)
        await ask(step_runs, claim.lease)
    await store_backend.store.read(keys[2], awaits=Awaits.END)
    partition = claim.lease.job.partition
    await store_backend.queue.offer(partition, "g1", [GPU])
    jobs = await store_backend.queue.unserved_jobs(partition, "g1", [GPU], 9)
    claims = [await store_backend.queue.claim(job, "g1", [GPU]) for job in jobs]
    found = [each.lease.job.key.owner for each in claims if each]
    assert found == [keys[2], keys[0], keys[1]]


async def test_step_runs_count_in_no_limit_of_callers(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    limit = 2 * store_backend.partitions
    store = store_backend.new_store(max_live=limit, namespace_max=limit)
    first, second = store_backend.neighbours(2)
    claim = await begin(store_backend, first)
    await ask(step_runs, claim.lease)
    started = await store.start(second, PLAN, TTL, restart=False)
    assert started.outcome is Outcome.STARTED


async def test_lost_sets_of_step_runs_are_mended(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key)
    await ask(step_runs, claim.lease)
    names = store_backend.keys_of(key)
    for lost in (
        "pool:gpu:pending",
        "pools",
        "unserved",
        "unserved:probe@v1/gpu",
        "status:pending",
    ):
        await store_backend.redis("DEL", beside(names, lost))
    await store_backend.redis("DEL", beside(names, "step_runs:pending"))
    assert (await sweep(store_backend, names))[2] == 1
    await Upkeep(store_backend.scripts, Retries(10), Unwatched()).reindex(names)
    assert await sizes(store_backend, key) == (1, 0, 1, 0)
    assert (await taken(store_backend, key)).step == "second"


async def test_the_worker_of_a_step_run_learns_of_callers_that_come_before_the_need(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    [key] = store_backend.neighbours(1)
    claim = await begin(store_backend, key, needed_in=600.0)
    assert not await ask(step_runs, claim.lease)
    async with store_backend.queue.withdrawals() as heard:
        own = await taken(store_backend, key)
        assert own.needed_us == claim.needed_us
        await store_backend.store.read(key)
        await store_backend.store.read(key, awaits=Awaits.CHANGES)
        for steps in ({"third"}, {"third", "unknown"}, {"second"}):
            await store_backend.store.read(key, awaits=Awaits.STEPS, required=steps)
        run, name = own.lease.job.run, own.lease.job.key
        news = [await anext(heard) for _ in range(4)]
        assert [each for each in news if each.key == name] == [
            Awaited(name, run, ("third",)),  # which needs it
            Awaited(name, run, ("second",)),
        ]
        assert Awaited(key, claim.lease.job.run, ("second",)) in news
    await store_backend.queue.release(own.lease)
    assert (await taken(store_backend, key)).awaited >= {"second"}


async def test_a_step_run_of_a_run_that_a_start_has_hurried_goes_first(
    store_backend: Backend, step_runs: RedisStepRuns
) -> None:
    hurried, other = store_backend.neighbours(2)
    claims = [await begin(store_backend, hurried, needed_in=7200.0)]
    await store_backend.store.start(hurried, PLAN, TTL, restart=False, needed_in=5.0)
    claims.append(await begin(store_backend, other, needed_in=600.0))
    for claim in reversed(claims):
        assert not await ask(step_runs, claim.lease)
    partition = store_backend.all_keys.index(store_backend.keys_of(hurried))
    await store_backend.queue.offer(partition, "g1", [GPU])
    jobs = await store_backend.queue.unserved_jobs(partition, "g1", [GPU], 1)
    own = await store_backend.queue.claim(jobs[0], "g1", [GPU])
    assert own is not None
    assert own.lease.job.key == hurried.step_run("second")
