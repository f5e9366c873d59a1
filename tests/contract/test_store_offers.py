"""What a start gives and a claim takes over is what the workers of today would make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headstart_service.domain import (
    Claim,
    Job,
    Lack,
    Offer,
    Outcome,
    Report,
    RunKey,
    RunPlan,
    Started,
    Status,
    StepRecord,
    StepState,
)
from tests.contract.backend import Backend, done, first_of, plan
from tests.support.waiting import wait_until

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
            await self.backend.queue.deregister(name)

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
    assert (again.revision, list(again.ended)) == (1, ["first"])


async def test_what_a_caller_has_reported_stays_with_whoever_takes_the_run(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A, b=B)
    started = await workers.start()
    report = await _report(store_backend, started.revision, "probe@v1", [], done("first"))
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
    joined = await workers.start()
    assert (joined.outcome, joined.revision) == (Outcome.JOINED, 2)
    assert (await workers.states())["first"] is StepState.PENDING


async def test_a_run_is_left_for_a_worker_that_offers_its_definition(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old)
    await workers.start(versioned("v2"))
    async with store_backend.announcements() as heard:
        assert await workers.claim("old", old) is None
        told = await first_of("unserved", heard)
        assert told.key == KEY, "else it waits for an upkeep"
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


async def test_one_claim_passes_over_all_runs_that_the_worker_does_not_offer(
    store_backend: Backend,
) -> None:
    *others, own = store_backend.neighbours(5)
    workers = Workers(store_backend, others[0])
    old = offer(definition="v1")
    await workers.come(old=old)
    for key in others:
        workers.key = key
        await workers.start(versioned("v2"))
    workers.key = own
    await workers.start(versioned("v1"))
    first, *_ = await workers.jobs("old")
    claimed = await store_backend.queue.claim(first, "old", [old])
    assert claimed is not None, "the worker waits for a job although one of its runs waits for it"
    assert claimed.lease.job.key == own
    assert (await store_backend.store.stats("")).unserved == {"probe": len(others)}


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


async def test_what_a_caller_made_of_a_step_goes_with_it(store_backend: Backend) -> None:
    """Else an answer would have one model's first step and another's second."""
    workers = Workers(store_backend)
    await workers.come(a=A, b=B)
    started = await workers.start()
    claim = await workers.claim("a", A)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    report = await _report(store_backend, started.revision, "probe@v1", ["first"], done("second"))
    assert report.accepted
    await store_backend.queue.release(claim.lease)
    again = await workers.claim("a", A)
    assert again is not None
    assert list(again.ended) == ["first", "second"]
    await store_backend.queue.release(again.lease)
    other = await workers.claim("b", B)
    assert other is not None
    assert other.ended == {}
    late = await _report(
        store_backend, started.revision, "probe@v1", [], done("first", b"<made of what A had made>")
    )
    assert not late.accepted, "what it was made of may have been read in the revision before"
    assert other.revision == started.revision + 1
    await store_backend.queue.commit(other.lease, [done("first"), done("second")], [])
    await store_backend.queue.release(other.lease)
    mine = await workers.claim("b", B)
    assert mine is not None
    assert list(mine.ended) == ["first", "second"], "it is B's own by now"


async def test_what_a_caller_made_of_its_own_step_stays_with_both(store_backend: Backend) -> None:
    workers = Workers(store_backend)
    await workers.come(b=B)
    started = await workers.start()
    for step, needs in (("first", []), ("second", ["first"])):
        report = await _report(store_backend, started.revision, "probe@v1", needs, done(step))
        assert report.accepted
    claim = await workers.claim("b", B)
    assert claim is not None
    assert list(claim.ended) == ["first", "second"]


async def test_a_start_keeps_nothing_that_a_caller_made_of_a_step_of_another_maker(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    await workers.come(a=A)
    started = await workers.start()
    claim = await workers.claim("a", A)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    await _report(store_backend, started.revision, "probe@v1", ["first"], done("second"))
    await store_backend.queue.release(claim.lease)
    await workers.come(b=B)
    await workers.go("a")
    same_steps = plan("d2")
    assert (await workers.start(same_steps)).outcome is Outcome.REPLACED
    assert set((await workers.states()).values()) == {StepState.PENDING}


async def test_a_job_that_was_handed_on_is_not_taken_for_another_run(
    store_backend: Backend,
) -> None:
    """It is the oldest that is not delivered when runs that were left bring theirs."""
    bound, left = store_backend.neighbours(2)
    workers = Workers(store_backend, bound)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old, gone=new, new=new)
    await workers.start(versioned("v2"))
    assert await workers.claim("old", old) is None
    [taken] = await store_backend.queue.unserved_jobs(workers.partition, "gone", [new], 9)
    assert taken.key == bound
    await store_backend.start(left, versioned("v2"))
    assert await workers.claim("old", old) is None
    await workers.go("gone")  # before it has claimed what it took

    async def take(limit: int) -> set[RunKey]:
        jobs = await store_backend.queue.unserved_jobs(workers.partition, "new", [new], limit)
        assert len(jobs) <= limit
        claims = [await store_backend.queue.claim(job, "new", [new]) for job in jobs]
        return {claim.lease.job.key for claim in claims if claim}

    found = await take(1)
    jobs = await workers.jobs("new")
    claims = [await store_backend.queue.claim(job, "new", [new]) for job in jobs]
    found |= {claim.lease.job.key for claim in claims if claim}
    assert found == {bound, left}
    assert (await store_backend.store.stats("")).queued_jobs == 0


async def test_a_run_that_is_joined_while_nobody_serves_it_waits_as_long_as_it_lives(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old = offer(definition="v1")
    await workers.come(old=old)
    await workers.start(versioned("v2"))
    assert await workers.claim("old", old) is None
    await store_backend.store.start(KEY, versioned("v2"), 90_000, restart=False)
    keys = store_backend.keys_of(KEY)
    left_for = f"headstart:{{{keys.partition}}}:unserved:probe@v2"
    assert (
        await store_backend.redis("PTTL", left_for) >= 1000 * await store_backend.pttl(KEY) - 1000
    )


async def test_a_damaged_record_among_orphans_is_no_orphan(store_backend: Backend) -> None:
    keys = store_backend.neighbours(2)
    workers = Workers(store_backend, keys[0])
    new = offer(definition="v2")
    await workers.come(new=new)
    for key in keys:
        await store_backend.start(key, versioned("v1"))
        assert await workers.claim("new", new) is None
    record = store_backend.keys_of(keys[0]).record(keys[0])
    await store_backend.redis("SET", record, "x", "PX", 60_000)
    [orphan] = await store_backend.store.orphans(["probe@v2"], 60, 10)
    assert orphan.key == keys[1]


async def test_what_callers_read_before_an_adoption_is_of_an_earlier_revision(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old, new=new)
    await workers.start(versioned("v1"))
    claim = await workers.claim("old", old)
    assert claim is not None
    await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)
    await workers.go("old")
    assert await workers.claim("new", new) is None
    [orphan] = await store_backend.store.orphans(["probe@v2"], 60, 10)
    assert await store_backend.store.adopt(orphan, versioned("v2"))
    assert set((await workers.states()).values()) == {StepState.PENDING}
    again = await workers.claim("new", new)
    assert again is not None
    assert (again.revision, again.ended) == (2, {})
    for revision, runs_class in ((1, "probe@v2"), (2, "probe@v1")):
        report = await _report(store_backend, revision, runs_class, [], done("first"))
        assert not report.accepted


async def test_no_orphan_is_adopted_that_a_worker_serves_in_another_version(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    old, new = offer(definition="v1"), offer(definition="v2")
    await workers.come(old=old, new=new)
    await workers.start(versioned("v1"))
    assert await workers.claim("new", new) is None
    assert await store_backend.store.orphans(["probe@v2"], 60, 10) == [], "the old one is busy"
    await workers.go("old")
    assert len(await store_backend.store.orphans(["probe@v2"], 60, 10)) == 1


async def _report(
    backend: Backend, revision: int, runs_class: str, needs: Sequence[str], record: StepRecord
) -> Report:
    """Report a step of the run that the key has."""
    run = (await backend.store.status(KEY)).run
    return await backend.store.report(KEY, run, revision, runs_class, needs, record)


async def test_runs_that_nobody_serves_are_kept_as_long_as_the_last_of_them_lives(
    store_backend: Backend,
) -> None:
    long, short = store_backend.neighbours(2)
    workers = Workers(store_backend, long)
    old = offer(definition="v1")
    await workers.come(old=old)
    for key, ttl in ((long, 90_000), (short, 60)):
        await store_backend.store.start(key, versioned("v2"), ttl, restart=False)
        assert await workers.claim("old", old) is None
    left_for = f"headstart:{{{workers.partition}}}:unserved:probe@v2"
    keys = store_backend.keys_of(long)
    ends = [await store_backend.redis("PEXPIRETIME", keys.record(key)) for key in (long, short)]
    assert await store_backend.redis("PEXPIRETIME", left_for) == max(ends) == ends[0]


async def test_nothing_is_left_of_the_offers_of_a_worker_that_fell_silent(
    store_backend: Backend,
) -> None:
    workers = Workers(store_backend)
    brief = store_backend.new_queue(lease=0.001)
    await brief.offer(workers.partition, "a", [A])
    offers = f"headstart:{{{workers.partition}}}:offers"

    async def gone() -> bool:
        await workers.come(b=B)
        return set(await store_backend.redis("HKEYS", offers)) == {b"=", b"b"}

    await wait_until(gone)
