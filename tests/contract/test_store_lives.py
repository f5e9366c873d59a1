"""What starts, reads, claims and offers leave behind, to the last field."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import (
    Lack,
    Offer,
    Outcome,
    Status,
    StepState,
)
from headstart_service.domain.errors import (
    CapacityExhausted,
    LeaseLost,
    RecordDamaged,
    RunNotFound,
)
from headstart_service.domain.log_fields import FIELDS
from headstart_service.store.job_queue import MAX_TRIES
from tests.contract.backend import OFFER, RESULT, TTL, Backend, done, plan, running
from tests.contract.beside import (
    HOUR,
    KEY,
    SECOND,
    beside,
    name_of,
    next_of,
    now_us,
    stand,
)
from tests.support.waiting import wait_until

WINDOW = 5_000_000
"""Microseconds in which ended runs are counted together."""


async def test_a_worker_that_can_run_nothing_at_the_moment_is_a_worker(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    partition = store_backend.keys_of(KEY).partition

    async def lacks() -> Lack | None:
        found = (await store_backend.store.read(KEY)).summary.lacks
        [listed] = await store_backend.store.list("games", [Status.PENDING], None, 9)
        assert listed.lacks is found
        assert (await store_backend.store.status(KEY)).summary.lacks is found
        return found

    assert await lacks() is Lack.WORKER
    await store_backend.queue.offer(partition, "w1", [])
    assert await lacks() is Lack.PIPELINE
    await store_backend.queue.offer(partition, "w2", [Offer("probe", "v2", {})])
    assert await lacks() is Lack.VERSION
    await store_backend.queue.offer(partition, "w3", [OFFER])
    assert await lacks() is None
    await store_backend.queue.deregister("w3")
    assert await lacks() is Lack.VERSION
    await store_backend.queue.deregister("w2")
    assert await lacks() is Lack.PIPELINE
    await store_backend.new_queue(lease=0.001).offer(partition, "w1", [])

    async def silent() -> bool:
        return (await store_backend.store.read(KEY)).summary.lacks is Lack.WORKER

    await wait_until(silent)


async def test_a_worker_counts_how_many_runs_were_left_for_all_of_its_offers(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(5)
    partition = store_backend.keys_of(keys[0]).partition
    offers = [Offer("probe", version, {}) for version in ("v1", "v2", "v3")]
    wanted = [plan() for _ in keys]
    versions = ("v1", "v1", "v2", "v2", "v2")
    for key, each, version in zip(keys, wanted, versions, strict=True):
        made = type(each)(each.pipeline, each.inputs, version, each.digest, each.steps)
        await store_backend.start(key, made)
    for job in await store_backend.jobs("other"):
        assert await store_backend.queue.claim(job, "other", [Offer("probe", "v9", {})]) is None
    queue = store_backend.queue
    assert [await queue.offer(partition, "w1", [each]) for each in offers] == [2, 3, 0]
    assert await queue.offer(partition, "w1", offers) == 5
    noted = await store_backend.redis(
        "HGET", beside(store_backend.keys_of(keys[0]), "offers"), "w1"
    )
    assert abs(int(noted.split(b" ")[0]) - now_us() - 60 * SECOND) < 10 * SECOND, "for a lease"
    assert (await store_backend.store.stats("")).queued_jobs == 5
    assert len(await queue.unserved_jobs(partition, "w1", offers, 2)) == 2
    assert await queue.offer(partition, "w1", offers) == 3
    jobs = await queue.unserved_jobs(partition, "w1", offers, 9)
    assert len(jobs) == 3
    assert await queue.unserved_jobs(partition, "w1", offers, 9) == []


async def test_a_result_that_is_asked_for_again_lives_as_long_as_that_start_wants_and_no_shorter(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY, ttl=100)
    await store_backend.store.read(KEY)
    keys = store_backend.keys_of(KEY)
    async with store_backend.announcements() as heard:
        await store_backend.start(KEY, ttl=500)
        await next_of(heard, "dropped")  # near-caches have another end of its life
    assert 490 < await store_backend.pttl(KEY) <= 500.001
    await store_backend.start(KEY, ttl=200)
    assert 490 < await store_backend.pttl(KEY) <= 500.001
    record = await store_backend.record(KEY)
    assert len(record[b"run"]) == 12, "72 random bits"
    assert (record[b"ttl"], record[b"seen"]) == (str(200 * SECOND).encode(), b"0")
    sets = [await store_backend.redis("ZCARD", beside(keys, name)) for name in ("read", "unread")]
    assert sets == [0, 1], "it is not the first to go"
    await store_backend.store.read(KEY)
    sets = [await store_backend.redis("ZCARD", beside(keys, name)) for name in ("read", "unread")]
    assert sets == [1, 0]


async def test_a_run_that_ended_keeps_nothing_that_only_a_worker_needs(
    store_backend: Backend,
) -> None:
    async def fields() -> set[bytes]:
        found = await store_backend.raw.hkeys(store_backend.keys_of(KEY).record(KEY))
        return {field for field in found if not field.startswith(b"s:")}

    await store_backend.store.start(KEY, plan(), TTL, restart=True, trace="00-trace")
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh"}
    claim = await store_backend.claim()
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh", b"claim", b"to"}
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh", b"to"}
    await store_backend.store.cancel(KEY)
    assert await fields() == {b"about"}
    assert (await store_backend.store.read(KEY)).states["second"] is StepState.PENDING
    keys = store_backend.keys_of(KEY)
    assert await store_backend.redis("EXISTS", keys.tickets) == 0


async def test_a_status_has_no_inputs_and_of_each_step_its_state_alone(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    seen = await store_backend.store.read(KEY)
    assert seen.running == {"second": b"<second runs>"}
    assert seen.body == b"<first><second runs>"
    assert (await store_backend.store.status(KEY)).running == {"second": b""}
    keys = store_backend.keys_of(KEY)
    left, *reply = await store_backend.scripts.status(keys, KEY)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    assert set(fields) == {b"about", b"s:first", b"s:second", b"lacks"}
    assert (fields[b"s:first"], fields[b"s:second"], fields[b"lacks"]) == (b"C", b"R", b"")
    assert 1790 * SECOND < left <= 1800 * SECOND


@pytest.mark.parametrize("field", [1, 2, 3, 6, 7, 8, 9, 10, 11])
async def test_a_number_that_a_double_does_not_hold_is_damage(
    store_backend: Backend, field: int
) -> None:
    await store_backend.complete(KEY)
    record = store_backend.keys_of(KEY).record(KEY)
    words = (await store_backend.redis("HGET", record, "about")).split(b" ")
    words[field] = str(2**53).encode()
    await store_backend.redis("HSET", record, "about", b" ".join(words))
    with pytest.raises(RecordDamaged):
        await store_backend.store.read(KEY)
    with pytest.raises(RecordDamaged):
        await store_backend.store.inspect(KEY)


async def test_a_run_that_has_just_expired_is_gone_for_every_call(store_backend: Backend) -> None:
    """Redis drops a record some time after its end: until then the scripts know better."""
    await store_backend.complete(KEY)
    record = store_backend.keys_of(KEY).record(KEY)
    words = (await store_backend.redis("HGET", record, "about")).split(b" ")
    words[10] = str(now_us() - SECOND).encode()
    await store_backend.redis("HSET", record, "about", b" ".join(words))
    store = store_backend.store
    for call in (
        store.read(KEY),
        store.inspect(KEY),
        store.status(KEY),
        store.cancel(KEY),
        store.report(KEY, "run", 1, "probe@v1", [], done("first")),
    ):
        with pytest.raises(RunNotFound):
            await call
    started = await store.start(KEY, plan(), TTL, restart=False)
    assert (started.outcome, started.revision) == (Outcome.STARTED, 1)
    assert (await store.read(KEY)).body != RESULT


async def test_a_namespace_begins_its_sums_if_it_is_among_the_first_thousand(
    store_backend: Backend,
) -> None:
    first, last, late = (
        store_backend.neighbours(1, namespace=name)[0] for name in ("first", "last", "late")
    )
    ledger = beside(store_backend.keys_of(first), "ledger")
    await store_backend.start(first)
    await store_backend.redis("HSET", ledger, "namespaces", 999)
    await store_backend.start(last)
    for _ in range(2):
        await store_backend.store.start(late, plan(), TTL, restart=True)
    assert int(await store_backend.redis("HGET", ledger, "namespaces")) == 1000
    stats = store_backend.store.stats
    assert (await stats("last")).ledger is not None
    assert (await stats("late")).ledger is None
    everybody = (await stats("")).ledger
    assert everybody is not None
    assert everybody.starts == 4


async def test_a_claim_that_is_given_back_by_a_worker_of_another_version_is_announced(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    at_once = store_backend.new_queue(lease=0)
    [job] = await at_once.lost_jobs(claim.lease.job.partition, "w2", 1)
    async with store_backend.announcements() as heard:
        assert await at_once.claim(job, "w2", [Offer("probe", "v9", {})]) is None
        kinds = [await next_of(heard, "released", "unserved") for _ in range(2)]
    assert kinds == ["released", "unserved"]
    states = (await store_backend.store.status(KEY)).states
    assert states == {"first": StepState.COMPLETED, "second": StepState.PENDING}


async def test_an_orphan_is_announced_when_it_is_adopted_and_its_limit_is_by_class(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(3)
    new = Offer("probe", "v2", {"first": "modelA"})
    await store_backend.queue.offer(store_backend.keys_of(keys[0]).partition, "w1", [new])
    for key in keys:
        await store_backend.start(key)
    old = Offer("probe", "v1", {"first": "modelA", "second": "modelA"})
    for job in await store_backend.jobs("w0"):
        claim = await store_backend.queue.claim(job, "w0", [old])
        assert claim is not None
        await store_backend.queue.release(claim.lease)
    for job in await store_backend.jobs("w1"):
        assert await store_backend.queue.claim(job, "w1", [new]) is None
    assert (await store_backend.record(keys[0]))[b"made"] == b"modelA.modelA"
    found = await store_backend.store.orphans(["probe@v2"], 60, 2)
    assert len(found) == 2
    async with store_backend.announcements() as heard:
        assert await store_backend.store.adopt(found[0], plan("d2"))
        await next_of(heard, "released", member=name_of(found[0].key))
    assert (await store_backend.record(found[0].key))[b"made"] == b"-", "nobody has made anything"
    assert len(await store_backend.store.orphans(["probe@v2"], 60, 9)) == 2
    await store_backend.store.cancel(found[1].key)
    assert not await store_backend.store.adopt(found[1], plan("d2"))


async def test_no_orphan_is_adopted_for_workers_that_have_gone(store_backend: Backend) -> None:
    partition = store_backend.keys_of(KEY).partition
    new = Offer("probe", "v2", {})
    await store_backend.start(KEY)
    [job] = await store_backend.jobs("w1")
    assert await store_backend.queue.claim(job, "w1", [new]) is None
    await store_backend.queue.offer(partition, "w1", [new])
    await store_backend.queue.deregister("w1")
    assert await store_backend.store.orphans(["probe@v2"], 60, 9) == [], "none computes it today"
    await store_backend.queue.offer(partition, "w2", [new])
    assert len(await store_backend.store.orphans(["probe@v2"], 60, 9)) == 1


@pytest.mark.parametrize(("ttl", "lives"), [(9000, 9000), (60, 1800)])
async def test_a_live_run_is_kept_for_its_ttl_and_half_an_hour_at_least(
    store_backend: Backend, ttl: float, lives: float
) -> None:
    keys = store_backend.keys_of(KEY)

    async def kept(what: str) -> None:
        assert lives - 10 < await store_backend.pttl(KEY) <= lives + 0.001, what
        end = float(await store_backend.redis("ZSCORE", keys.expiry, name_of(KEY)))
        assert lives - 10 < (end - now_us()) / SECOND <= lives + 1, what
        await store_backend.redis("PEXPIRE", keys.record(KEY), 5000)

    await store_backend.start(KEY, ttl=ttl)
    await kept("started")
    claim = await store_backend.claim()
    await kept("claimed")
    await store_backend.queue.renew([claim.lease], "w1")
    await kept("renewed")
    await store_backend.start(KEY, ttl=ttl)
    await kept("joined")


async def test_what_stands_among_left_runs_and_is_none_is_cleared_away(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY)
    keys = store_backend.keys_of(KEY)
    unserved = beside(keys, "unserved")
    await store_backend.redis("HSET", unserved, "probe@v1", 1, "probe@v2", 1)
    await stand(store_backend, KEY, 5, "unserved:probe@v1")
    offers = [OFFER, Offer("probe", "v2", {})]
    assert await store_backend.queue.unserved_jobs(keys.partition, "w1", offers, 9) == []
    assert await store_backend.redis("EXISTS", unserved) == 0
    assert await store_backend.redis("EXISTS", beside(keys, "waiting")) == 0


@pytest.mark.parametrize(
    ("since", "window", "before", "during", "fastest", "slowest"),
    [
        (100, 0, 1, 9, 1.0, 6.0),  # ten in the 15 s at most since the window before this one
        (100, 1, 7, 10, 1.0, 6.0),  # what was the present window is the one before
        (100, 2, 10, 10, 10.0, 40.0),  # none in the five seconds and more since then
        (100, 9, 10, 10, 10.0, 40.0),
        (0, 0, 0, 20, 0.1, 2.0),  # twenty within a second
        (0, 0, 0, 0, 2.0, 4.0),  # none in the first second
    ],
)
async def test_a_refused_start_may_be_repeated_when_as_many_runs_have_ended_as_are_before_it(
    store_backend: Backend,
    since: int,
    window: int,
    before: int,
    during: int,
    fastest: float,
    slowest: float,
) -> None:
    """`since` is in seconds before now, `window` in windows of five seconds."""
    partitions = store_backend.partitions
    store = store_backend.new_store(max_live=4 * partitions)
    *keys, newcomer = store_backend.neighbours(5)
    for key in keys:
        await store.start(key, plan(), TTL, restart=False)
    ledger = beside(store_backend.keys_of(newcomer), "ledger")
    now = 0
    while now_us() // WINDOW != now // WINDOW:  # else a new window began meanwhile
        now = now_us()
        line = f"{now - since * 10**6} {now // WINDOW - window} {before} {during}"
        await store_backend.redis("HSET", ledger, "ended", line)
        with pytest.raises(CapacityExhausted, match=f"{4 * partitions} runs have not") as caught:
            await store.start(newcomer, plan(), TTL, restart=False)
    assert fastest <= caught.value.retry_after <= slowest


async def test_a_service_that_was_idle_measures_from_its_first_start(
    store_backend: Backend,
) -> None:
    ledger = beside(store_backend.keys_of(KEY), "ledger")

    async def noted() -> list[int]:
        return [int(each) for each in (await store_backend.redis("HGET", ledger, "ended")).split()]

    await store_backend.redis("HSET", ledger, "ended", "1000000 5 3 4")
    await store_backend.start(KEY)
    since, window, *ended = await noted()
    assert abs(since - now_us()) < 10 * SECOND
    assert ended == [0, 0]
    await store_backend.redis("HSET", ledger, "ended", f"{since - HOUR} {window - 1} 3 4")
    await store_backend.store.cancel(KEY)
    assert (await noted())[0] == since - HOUR, "it was busy until a window ago"


async def test_every_run_that_ends_counts_for_the_delay_of_refused_starts(
    store_backend: Backend,
) -> None:
    completed, cancelled, other = store_backend.neighbours(3)
    ledger = beside(store_backend.keys_of(other), "ledger")
    await store_backend.complete(completed)
    await store_backend.start(cancelled)
    await store_backend.store.cancel(cancelled)
    await store_backend.start(other)
    _, _, before, during = (await store_backend.redis("HGET", ledger, "ended")).split()
    assert int(before) + int(during) == 2


async def test_a_namespaces_share_is_its_own_whatever_its_name_begins_with(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(namespace_max=1 * store_backend.partitions)
    names = ("a", "a-b", "a.b", "a_b", "a-", "ab")
    keys = [store_backend.neighbours(1, namespace=name)[0] for name in names]
    for key in keys:
        await store_backend.complete(key)
        await store.read(key)
    for key, name in zip(keys, names, strict=True):
        newcomer = store_backend.neighbours(1, namespace=name, name="new")[0]
        await store.start(newcomer, plan(), TTL, restart=False)
        keys = [each for each in keys if each != key]
        assert await store_backend.kept(keys) == keys
        assert await store_backend.kept([key]) == []


async def test_an_offer_lasts_as_long_as_the_last_worker_that_makes_it(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    keys = store_backend.keys_of(KEY)
    brief = store_backend.new_queue(lease=0.01)
    await store_backend.queue.offer(keys.partition, "w1", [OFFER])
    await brief.offer(keys.partition, "w2", [OFFER])
    every = await store_backend.redis("HGET", beside(keys, "offers"), "=")
    [line] = every.split(b"\n")
    assert int(line.split(b" ")[0]) > now_us() + 30 * SECOND
    await asyncio.sleep(0.02)
    await store_backend.queue.offer(keys.partition, "w3", [Offer("other", "v1", {})])
    assert (await store_backend.store.status(KEY)).summary.lacks is None
    await store_backend.queue.deregister("w1")
    await store_backend.queue.deregister("w3")
    every = await store_backend.redis("HGET", beside(keys, "offers"), "=")
    classes = sorted(line.split(b" ")[1] for line in every.split(b"\n"))
    assert classes == [b"other@v1", b"probe@v1"], "of each pipeline its last offers are known"
    await store_backend.queue.offer(keys.partition, "w4", [Offer("probe", "v2", {})])
    every = await store_backend.redis("HGET", beside(keys, "offers"), "=")
    classes = sorted(line.split(b" ")[1] for line in every.split(b"\n"))
    assert classes == [b"other@v1", b"probe@v2"], "and with a live one no others"


async def test_a_refusal_names_whose_places_are_taken(store_backend: Backend) -> None:
    partitions = store_backend.partitions
    live, newcomer = store_backend.neighbours(2)
    [other] = store_backend.neighbours(1, namespace="other")
    await store_backend.start(live)
    for limits, key, told in (
        ({"max_records": partitions}, other, f"all {partitions} places are held"),
        (
            {"namespace_max": partitions},
            newcomer,
            f"all {partitions} places of namespace games are",
        ),
        ({"max_live": partitions}, other, f"the queue is full: {partitions} runs have not ended"),
    ):
        store = store_backend.new_store(**limits)
        with pytest.raises(CapacityExhausted, match=told):
            await store.start(key, plan(), TTL, restart=False)
    store = store_backend.new_store(namespace_max=partitions)
    await store.start(other, plan(), TTL, restart=False)


async def test_what_becomes_of_jobs_that_are_not_taken_is_logged_with_their_runs(
    store_backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    keys = store_backend.keys_of(KEY)
    claim = await store_backend.begin(KEY)
    at_once = store_backend.new_queue(lease=0)
    for number in range(MAX_TRIES):
        [job] = await at_once.lost_jobs(keys.partition, f"w{number}", 1)
        last = await at_once.claim(job, f"w{number}")
    assert last is None
    [line] = caplog.records
    assert line.getMessage() == "games/game-1 has failed: its workers were lost too often"
    assert getattr(line, FIELDS) == {
        "event": "run.failed",
        "namespace": "games",
        "key": "game-1",
        "run": claim.lease.job.run,
        "error": "worker lost: in each try it ended, was blocked or lost Redis",
    }
    caplog.clear()
    damaged = store_backend.neighbours(1, name="damaged")[0]
    await store_backend.start(damaged)
    record = store_backend.keys_of(damaged).record(damaged)
    [job] = await store_backend.jobs("w1")
    await store_backend.redis("HSET", record, "about", "what is this")
    assert await store_backend.queue.claim(job, "w1") is None
    [line] = caplog.records
    assert line.getMessage().startswith("a job is dropped: ")
    assert getattr(line, FIELDS)["event"] == "job.dropped"
    caplog.clear()
    names = store_backend.keys_of(damaged)
    await store_backend.redis("XADD", names.jobs, "*", "nonsense", "x")
    assert await store_backend.jobs("w1") == []
    [line] = caplog.records
    assert line.getMessage().startswith("not a job of ours is dropped: entry ")
    assert await store_backend.redis("XLEN", names.jobs) == 0


async def test_a_run_whose_record_is_damaged_while_it_runs_is_given_up_by_its_worker(
    store_backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    claim = await store_backend.begin(KEY)
    keys = store_backend.keys_of(KEY)
    await store_backend.redis("HSET", keys.record(KEY), "about", "what is this")
    assert await store_backend.queue.renew([claim.lease], "w1") == [claim.lease]
    with pytest.raises(LeaseLost):
        await store_backend.queue.commit(claim.lease, [done("first")], [])
    await store_backend.queue.release(claim.lease)
    assert caplog.text.count("a run is given up: ") == 3
    assert b"s:first" not in await store_backend.raw.hkeys(keys.record(KEY))


async def test_a_run_whose_inputs_are_gone_fails_with_that_reason(
    store_backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    await store_backend.start(KEY)
    await store_backend.redis("HDEL", store_backend.keys_of(KEY).record(KEY), "inputs")
    [job] = await store_backend.jobs("w1")
    assert await store_backend.queue.claim(job, "w1") is None
    summary = (await store_backend.store.status(KEY)).summary
    assert (summary.status, summary.error) == (Status.FAILED, "its record is damaged")
    [line] = caplog.records
    assert line.getMessage() == "a run has failed: the record of games/game-1 is damaged"
    told = getattr(line, FIELDS)
    assert (told["event"], told["error"]) == ("run.failed", "its record is damaged")


@pytest.mark.parametrize("same", [("first",), ("second",), ("first", "second")])
async def test_a_start_with_other_inputs_keeps_each_step_whose_inputs_are_the_same(
    store_backend: Backend, same: tuple[str, ...]
) -> None:
    await store_backend.complete(KEY)
    steps = {name: f"{name[0]}1" if name in same else "other" for name in ("first", "second")}
    started = await store_backend.store.start(KEY, plan("d2", steps), TTL, restart=False)
    assert (started.outcome, started.revision) == (Outcome.REPLACED, 2)
    found = await store_backend.store.read(KEY)
    kept = {name for name, state in found.states.items() if state is StepState.COMPLETED}
    assert kept == set(same)
    assert sorted(found.body.replace(b">", b"> ").split()) == [f"<{n}>".encode() for n in same]
    claim = await store_backend.claim("w2")
    assert {name: step.fragment for name, step in claim.ended.items()} == {
        name: f"<{name}>".encode() for name in same
    }
