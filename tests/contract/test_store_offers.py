"""What a start gives and a claim takes over is what the workers of today would make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headstart_service.domain import (
    Claim,
    Job,
    Lack,
    Offer,
    Outcome,
    RunKey,
    RunPlan,
    Started,
    Status,
    StepState,
)
from tests.contract.backend import Backend, done, plan

KEY = RunKey("games", "offers")


def offer(first: str = "", second: str = "", definition: str = "v1") -> Offer:
    """Of a worker whose provider for each step has this identity."""
    makers = {name: maker for name, maker in (("first", first), ("second", second)) if maker}
    return Offer("probe", definition, makers)


A, B = offer("modelA", "modelA"), offer("modelB", "modelB")
HALF = offer("modelA", "modelB")
"""Another provider for the second step alone."""


def versioned(definition: str, digest: str = "d1") -> RunPlan:
    found = plan(digest)
    return RunPlan(found.pipeline, found.inputs, definition, found.digest, found.steps)


class Workers:
    """Workers by name, each with its offers."""

    def __init__(self, backend: Backend, key: RunKey = KEY) -> None:
        self.backend, self.key = backend, key
        self.partition = backend.keys_of(key).partition

    async def come(self, **offers: Offer) -> None:
        await self.backend.queue.prepare_queue()
        for name, each in offers.items():
            await self.backend.queue.offer(self.partition, name, [each])

    async def go(self, *names: str) -> None:
        for name in names:
            await self.backend.queue.leave(name)

    async def start(self, wanted: RunPlan | None = None) -> Started:
        return await self.backend.store.start(self.key, wanted or plan(), 1000, restart=False)

    async def jobs(self, worker: str) -> Sequence[Job]:
        return await self.backend.queue.next_jobs(self.partition, worker, 10, 0)

    async def claim(self, worker: str, *offers: Offer) -> Claim | None:
        [job] = await self.jobs(worker)
        return await self.backend.queue.claim(job, worker, offers)

    async def complete(self, worker: str, *offers: Offer) -> None:
        claim = await self.claim(worker, *offers)
        assert claim is not None
        ended = [done(name, f"<{name} by {worker}>".encode()) for name in ("first", "second")]
        await self.backend.queue.finish(claim.lease, ended, Status.COMPLETED, "")

    async def states(self) -> Mapping[str, StepState]:
        return (await self.backend.store.status(self.key)).states


async def test_a_result_that_no_worker_of_today_would_make_is_made_anew(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A)
    await workers.start()
    await workers.complete("a", A)
    assert (await workers.start()).outcome is Outcome.REUSED
    await workers.come(b=B)
    assert (await workers.start()).outcome is Outcome.REUSED, "one of them would make it"
    await workers.go("a")
    started = await workers.start()
    assert (started.outcome, started.revision) == (Outcome.STARTED, 2)
    assert set((await workers.states()).values()) == {StepState.PENDING}
    await workers.complete("b", B)
    assert (await workers.start()).outcome is Outcome.REUSED


async def test_without_workers_what_the_last_ones_made_is_reused(store_backend: Backend) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A)
    await workers.start()
    await workers.complete("a", A)
    await workers.go("a")
    assert (await workers.start()).outcome is Outcome.REUSED
    await workers.come(b=B)
    await workers.go("b")
    assert (await workers.start()).outcome is Outcome.STARTED


async def test_a_worker_that_falls_silent_offers_nothing_any_more(store_backend: Backend) -> None:
    workers = Workers(store_backend)
    await workers.come(b=B)
    brief = store_backend.new_queue(lease=0.001)
    await brief.offer(workers.partition, "a", [A])
    await workers.start()
    await workers.complete("a", A)
    assert (await workers.start()).outcome is Outcome.STARTED


async def test_a_worker_that_takes_a_run_over_computes_anew_what_it_makes_otherwise(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A, b=B)
    await workers.start()
    claim = await workers.claim("a", A)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)
    again = await workers.claim("b", B)
    assert again is not None
    assert again.ended == {}
    assert set((await workers.states()).values()) == {StepState.PENDING}


async def test_a_worker_that_takes_a_run_over_keeps_what_it_would_make_too(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A, b=HALF)
    await workers.start()
    claim = await workers.claim("a", A)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)
    again = await workers.claim("b", HALF)
    assert again is not None
    assert list(again.ended) == ["first"]


async def test_what_a_caller_has_reported_stays_with_whoever_takes_the_run(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A, b=B)
    started = await workers.start()
    run = (await store_backend.store.status(KEY)).run
    report = await store_backend.store.report(
        KEY, run, started.revision, "probe", [], done("first")
    )
    assert report.accepted
    claim = await workers.claim("a", A)
    assert claim is not None
    assert list(claim.ended) == ["first"]
    await store_backend.queue.release(claim.lease)
    again = await workers.claim("b", B)
    assert again is not None
    assert list(again.ended) == ["first"]


async def test_steps_of_another_maker_are_not_kept_for_other_inputs(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A)
    await workers.start()
    await workers.complete("a", A)
    other = plan("d2", {"first": "f1", "second": "s2"})
    assert (await workers.start(other)).outcome is Outcome.REPLACED
    assert (await workers.states())["first"] is StepState.COMPLETED
    await workers.complete("a", A)
    await workers.come(b=B)
    await workers.go("a")
    third = plan("d3", {"first": "f1", "second": "s3"})
    assert (await workers.start(third)).outcome is Outcome.REPLACED
    assert set((await workers.states()).values()) == {StepState.PENDING}


async def test_a_pending_run_that_is_joined_shows_nothing_of_a_maker_that_has_gone(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A)
    await workers.start()
    claim = await workers.claim("a", A)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)
    await workers.come(b=HALF)
    await workers.go("a")
    assert (await workers.start()).outcome is Outcome.JOINED
    assert (await workers.states())["first"] is StepState.COMPLETED
    await workers.come(c=B)
    await workers.go("b")
    assert (await workers.start()).outcome is Outcome.JOINED
    assert (await workers.states())["first"] is StepState.PENDING


async def test_a_run_is_left_for_a_worker_that_offers_its_definition(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old)
    await workers.start(versioned("v2"))
    assert await workers.claim("old", old) is None
    summary = (await store_backend.store.status(KEY)).summary
    assert (summary.status, summary.lacks) == (Status.PENDING, Lack.VERSION)
    [listed] = await store_backend.store.list("games", list(Status), None, 10)
    assert listed.lacks is Lack.VERSION
    stats = await store_backend.store.stats("")
    assert (stats.queued_jobs, stats.unserved) == (1, {"probe": 1})
    assert await workers.jobs("old") == []
    assert await store_backend.queue.unserved_jobs(workers.partition, "old", [old], 9) == []

    assert await store_backend.queue.offer(workers.partition, "new", [new]) == 1
    [job] = await store_backend.queue.unserved_jobs(workers.partition, "new", [new], 9)
    claim = await store_backend.queue.claim(job, "new", [new])
    assert claim is not None
    assert claim.lease.job.key == KEY
    assert (await store_backend.store.stats("")).unserved == {}


async def test_a_job_of_a_lost_worker_is_left_for_its_like(store_backend: Backend) -> None:
    workers = Workers(store_backend)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old, new=new)
    await workers.start(versioned("v2"))
    claim = await workers.claim("new", new)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    at_once = store_backend.new_queue(lease=0)
    [lost] = await at_once.lost_jobs(workers.partition, "old", 9)
    assert await at_once.claim(lost, "old", [old]) is None
    assert await at_once.lost_jobs(workers.partition, "old", 9) == []
    [job] = await at_once.unserved_jobs(workers.partition, "newer", [new], 9)
    again = await at_once.claim(job, "newer", [new])
    assert again is not None
    assert (again.lease.attempt, list(again.ended)) == (2, ["first"])


async def test_a_worker_takes_the_runs_that_were_left_for_it_in_their_turn(
    store_backend: Backend,
) -> None:
    first, second = store_backend.neighbours(2)
    workers = Workers(store_backend, first)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old)
    await workers.start(versioned("v2"))
    assert await workers.claim("old", old) is None
    workers.key = second
    await workers.start(versioned("v1"))
    # The ticket is the second run's. The first one is before it, so it brings another.
    claimed = await workers.claim("both", old, new)
    assert claimed is not None
    assert claimed.lease.job.key == first
    rest = await workers.claim("old", old)
    assert rest is not None
    assert rest.lease.job.key == second


async def test_a_start_by_the_other_definition_takes_along_a_run_that_nobody_serves(
    store_backend: Backend,
) -> None:
    """Definitions may differ in steps that a run does not have: then its digest is the same."""
    workers = Workers(store_backend)
    new = offer(definition="v2")
    await workers.come(new=new)
    await workers.start(versioned("v1"))
    assert await workers.claim("new", new) is None
    assert (await workers.start(versioned("v2"))).outcome is Outcome.JOINED
    claim = await workers.claim("new", new)
    assert claim is not None
    assert claim.lease.job.key == KEY


async def test_runs_that_nobody_serves_are_cancelled_replaced_and_forgotten_as_others(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(3)
    workers = Workers(store_backend, keys[0])
    old = offer(definition="v1")
    await workers.come(old=old)
    for key in keys:
        await store_backend.store.start(key, versioned("v2"), 1000, restart=False)
    for job in await workers.jobs("old"):
        assert await store_backend.queue.claim(job, "old", [old]) is None
    assert (await store_backend.store.stats("")).unserved == {"probe": 3}
    await store_backend.store.cancel(keys[0])
    await store_backend.store.start(keys[1], versioned("v1", "d9"), 1000, restart=False)
    await store_backend.redis(
        "HSET",
        store_backend.keys_of(keys[2]).record(keys[2]),
        "about",
        await _expired(store_backend, keys[2]),
    )
    await store_backend.redis(
        "ZADD", store_backend.keys_of(keys[2]).fixed[1], 1, f"games:{keys[2].key}"
    )
    await store_backend.queue.sweep()
    assert (await store_backend.store.stats("")).unserved == {}
    claim = await workers.claim("old", old)
    assert claim is not None
    assert claim.lease.job.key == keys[1]


async def _expired(backend: Backend, key: RunKey) -> bytes:
    """The record's line, with an end of its life that is over."""
    words = (await backend.redis("HGET", backend.keys_of(key).record(key), "about")).split(b" ")
    words[10] = b"1"
    return b" ".join(words)


async def test_what_an_update_leaves_behind_is_adopted_once_nobody_else_would(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old_api, new_api = store_backend.new_store(), store_backend.new_store()
    new = offer(definition="v2")
    await workers.come(new=new)
    await old_api.orphans(["probe@v1"], 60, 10)
    await workers.start(versioned("v1"))
    assert await workers.claim("new", new) is None
    assert await new_api.orphans(["probe@v2"], 60, 10) == [], "an API process starts such runs yet"
    await old_api.orphans(["probe@v1"], 0, 10)
    [orphan] = await new_api.orphans(["probe@v2"], 60, 10)
    assert (orphan.key, orphan.pipeline, orphan.inputs) == (KEY, "probe", plan().inputs)
    again = versioned("v2", "d1-by-v2")
    assert await new_api.adopt(orphan, again)
    assert not await new_api.adopt(orphan, again)
    claim = await workers.claim("new", new)
    assert claim is not None
    assert (claim.lease.job.key, claim.revision) == (KEY, 1)
    assert (await workers.start(again)).outcome is Outcome.JOINED


async def test_no_orphan_is_adopted_that_workers_of_today_do_not_compute(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old = offer(definition="v1")
    await workers.come(old=old)
    await workers.start(versioned("v0"))
    assert await workers.claim("old", old) is None
    assert await store_backend.store.orphans(["probe@v2"], 60, 10) == []
    assert len(await store_backend.store.orphans(["probe@v1"], 60, 10)) == 1
