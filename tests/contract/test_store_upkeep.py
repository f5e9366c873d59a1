"""What is kept beside the records: its bounds, its ends, and what mends it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headstart_service.domain import (
    Announcement,
    Lack,
    Offer,
    Outcome,
    RunKey,
    Status,
    StepState,
    WorkerState,
)
from headstart_service.engine.fields import FIELDS
from headstart_service.engine.pace import Pace
from headstart_service.errors import (
    CapacityExhausted,
    LastTry,
    LayoutMismatch,
    LeaseLost,
    RecordDamaged,
    RunNotFound,
)
from headstart_service.store.connect import WORKER
from headstart_service.store.job_queue import MAX_TRIES, RedisJobQueue
from headstart_service.store.keys import GROUP, PartitionKeys
from headstart_service.store.layout import StoreLayout
from headstart_service.store.observe import Unwatched
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.repartition import StoreInUse, repartition
from tests.contract.backend import BUDGET, OFFER, RESULT, TTL, Backend, done, plan, running
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")
SECOND = 1_000_000
HOUR = 3600 * SECOND


def now_us() -> int:
    """The server's time, which is this machine's, in microseconds."""
    return time.time_ns() // 1000


def name_of(key: RunKey) -> str:
    return f"{key.namespace}:{key.key}"


def beside(keys: PartitionKeys, name: str) -> str:
    """A partition's key of this name."""
    return keys.jobs.removesuffix("jobs") + name


async def sweep(backend: Backend, keys: PartitionKeys) -> list[int]:
    """What sweep.lua returns: expired, more, broken."""
    reply: list[int] = await backend.queue._scripts.sweep(keys, None)
    return reply


async def idle_ms(backend: Backend, keys: PartitionKeys) -> int:
    [entry] = await backend._client.xpending_range(keys.jobs, GROUP, "-", "+", 10)
    return int(entry["time_since_delivered"])


async def _next(heard: AsyncIterator[Announcement], *kinds: str, member: str = "") -> str:
    """The kind of the next announcement of these; in a cluster earlier ones may be on their way."""
    async with asyncio.timeout(10):
        async for announcement in heard:
            if announcement.kind in kinds and member in ("", name_of(announcement.key)):
                return announcement.kind
    raise AssertionError("nothing was announced")


async def start_all(backend: Backend, keys: list[RunKey]) -> None:
    store = backend.new_store(max_records=2000 * backend.partitions)
    await asyncio.gather(*(store.start(key, plan(), TTL, restart=False) for key in keys))
    await store.aclose()


# Live processes and consumers.


async def test_a_process_is_noted_again_once_half_its_time_is_over(store_backend: Backend) -> None:
    layout = StoreLayout(store_backend.client(WORKER), store_backend.partitions)
    processes = PartitionKeys(0).processes
    ttl = 60.0

    async def noted(seconds: float) -> float:
        """Compare when the process counts for so many more seconds; how many it then has."""
        await layout.agree_all("api a", ttl)
        at = now_us() + round(seconds * SECOND)
        await store_backend.redis("ZADD", processes, at, "api a")
        assert await layout.agree_all("api a", ttl)
        return float(await store_backend.redis("ZSCORE", processes, "api a") - at) / SECOND

    assert await noted(40.0) == 0, "an idle store need not write each second"
    assert 39 < await noted(20.0) < 41
    assert 50_000 < await store_backend.redis("PTTL", processes) <= 60_000


async def test_a_process_that_is_live_for_longer_than_any_is_of_a_clock_that_was_set_back(
    store_backend: Backend,
) -> None:
    layout = StoreLayout(store_backend.client(WORKER), store_backend.partitions)
    processes = PartitionKeys(0).processes
    for name, minutes in (("soon", 9), ("ahead", 11)):
        await store_backend.redis("ZADD", processes, now_us() + minutes * 60 * SECOND, name)
    await store_backend.redis("PEXPIRE", processes, 60_000)
    assert await layout.live() == ["soon"]
    assert await store_backend.redis("ZCARD", processes) == 1


async def test_a_process_that_differs_is_not_noted_as_live(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    other = StoreLayout(store_backend.client(WORKER), store_backend.partitions + 1)
    with pytest.raises(LayoutMismatch):
        await other.agree_all("api b", 60)
    assert await store_backend.redis("EXISTS", PartitionKeys(0).processes) == 0


async def test_up_to_a_hundred_live_processes_are_named(store_backend: Backend) -> None:
    layout = StoreLayout(store_backend.client(WORKER), store_backend.partitions)
    await layout.agree_all("p000", 60)
    till = now_us() + 60 * SECOND
    others = [part for i in range(1, 105) for part in (till + i, f"p{i:03}")]
    await store_backend.redis("ZADD", PartitionKeys(0).processes, *others)
    names = [f"p{i:03}" for i in range(100)]
    assert await layout.live() == names
    with pytest.raises(StoreInUse, match="100 processes use the store"):
        await repartition(layout.client, store_backend.partitions + 1, lambda _: None)


async def test_a_consumer_goes_when_it_holds_nothing_and_has_been_silent_for_long(
    store_backend: Backend,
) -> None:
    await store_backend.begin(KEY, "holds a job")
    await store_backend.jobs("has gone")
    keys = store_backend.keys_of(KEY)

    async def silent() -> bool:
        found: Any = await store_backend._client.xinfo_consumers(keys.jobs, GROUP)
        return all(each["idle"] > 1 for each in found)

    await wait_until(silent)
    prepare = store_backend.queue._scripts.prepare
    assert await prepare(keys, None, idle_ms=60_000) == 0
    assert await prepare(keys, None, idle_ms=1) == 1
    [left] = await store_backend._client.xinfo_consumers(keys.jobs, GROUP)
    assert left["name"] == b"holds a job"


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
    await store_backend.queue.leave("w8")
    assert (await store_backend.record(KEY))[b"entry"].decode() == claim.lease.job.entry
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")


async def test_a_worker_that_leaves_offers_nothing_any_more_and_hands_on_all_it_held(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(1010)
    names = store_backend.keys_of(keys[0])
    await start_all(store_backend, keys)
    await store_backend.queue.offer(names.partition, "w1", [OFFER])
    assert len(await store_backend.jobs("w1", limit=10_000)) == 1010
    leave = store_backend.queue._scripts.leave
    assert await leave(names, None, worker="w1") == 1010
    assert (await store_backend.store.read(keys[0])).summary.lacks is Lack.WORKER
    jobs = await store_backend.jobs("w2", limit=10_000)
    assert sorted(job.key.key for job in jobs) == sorted(key.key for key in keys)


# Workers and their offers.


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
    await store_backend.queue.leave("w3")
    assert await lacks() is Lack.VERSION
    await store_backend.queue.leave("w2")
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


async def test_what_is_left_of_workers_that_are_silent_ends_with_the_last_ones_list(
    store_backend: Backend,
) -> None:
    def state(name: str) -> WorkerState:
        return WorkerState(
            name=name, host="h", version="1", pipelines=(), slots=1, busy=0, started_us=1
        )

    roster = PartitionKeys(0).workers
    for name, minutes in (("soon", 9), ("ahead", 11)):
        text = f"{now_us() + minutes * 60 * SECOND} {{}}"
        await store_backend.redis("HSET", roster, name, text)
    await store_backend.queue.beat(state("w1"), 60)
    assert set(await store_backend.redis("HKEYS", roster)) == {b"soon", b"w1"}
    await store_backend.redis("PEXPIRE", roster, 30_000)
    await store_backend.queue.beat(state("w1"), 60)
    assert 50_000 < await store_backend.redis("PTTL", roster) <= 60_000


# The clock.


@pytest.mark.parametrize(("ahead", "mended"), [(HOUR, True), (2 * SECOND, True), (200_000, False)])
async def test_what_a_clock_that_was_set_back_has_left_ahead_ends_as_much_earlier(
    store_backend: Backend, ahead: int, *, mended: bool
) -> None:
    keys = store_backend.keys_of(KEY)
    await store_backend.queue.offer(keys.partition, "w1", [OFFER])
    await store_backend.store.orphans(["probe@v1"], 90, 10)
    names = [beside(keys, name) for name in ("offers", "starters")]

    async def ends() -> list[int]:
        found = [await store_backend.redis("HVALS", name) for name in names]
        return [int(text.split(b" ")[0]) for texts in found for text in sorted(texts)]

    before = await ends()
    latest = now_us() + ahead
    await store_backend.redis("HSET", beside(keys, "ledger"), "clock", latest)
    await sweep(store_backend, keys)
    moved = [old - new for old, new in zip(before, await ends(), strict=True)]
    if mended:
        assert all(ahead - SECOND < by <= ahead for by in moved), moved
    else:
        assert set(moved) == {0}
    noted = int(await store_backend.redis("HGET", beside(keys, "ledger"), "clock"))
    assert latest - ahead <= noted < latest, "the clock that is"


async def test_the_time_is_noted_every_four_seconds_and_not_at_each_look(
    store_backend: Backend,
) -> None:
    keys = store_backend.keys_of(KEY)
    ledger = beside(keys, "ledger")
    await sweep(store_backend, keys)
    for behind, noted in ((2 * SECOND, False), (6 * SECOND, True)):
        for look in (
            lambda: sweep(store_backend, keys),
            lambda: store_backend.store.orphans(["probe@v1"], 60, 10),
        ):
            at = now_us() - behind
            await store_backend.redis("HSET", ledger, "clock", at)
            await look()
            found = int(await store_backend.redis("HGET", ledger, "clock"))
            assert (found > at) is noted


# Mending.


async def test_what_cannot_be_mended_is_looked_at_once_a_minute(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    keys = store_backend.keys_of(KEY)
    await sweep(store_backend, keys)
    await store_backend.redis("ZADD", beside(keys, "status:pending"), 0, "games:ghost")
    assert (await sweep(store_backend, keys))[2] == 1
    assert (await sweep(store_backend, keys))[2] == 0
    for seconds, again in ((50, 0), (70, 1), (-50, 0), (-70, 1)):
        at = now_us() - seconds * SECOND
        await store_backend.redis("HSET", beside(keys, "ledger"), "mended", at)
        assert (await sweep(store_backend, keys))[2] == again, seconds


async def test_an_index_of_many_runs_is_mended_to_the_last(store_backend: Backend) -> None:
    """Each call looks at some 500 records."""
    keys = store_backend.neighbours(700)
    names = store_backend.keys_of(keys[0])
    await start_all(store_backend, keys)
    pending = beside(names, "status:pending")
    await store_backend.redis("DEL", pending)
    ghosts = [part for i in range(700) for part in (0, f"games:ghost-{i}")]
    await store_backend.redis("ZADD", pending, *ghosts)
    await store_backend.queue.sweep()
    assert (await store_backend.store.stats("")).counts == {Status.PENDING: 700}
    assert (await sweep(store_backend, names))[2] == 0


async def test_a_run_that_was_left_for_others_is_found_again_by_its_set(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    keys = store_backend.keys_of(KEY)
    [job] = await store_backend.jobs("w1")
    assert await store_backend.queue.claim(job, "w1", [Offer("probe", "v9", {})]) is None
    await store_backend.redis("DEL", beside(keys, "unserved"))
    await store_backend.queue.sweep()
    assert await store_backend.queue.offer(keys.partition, "w2", [OFFER]) == 1
    assert await store_backend.redis("ZCARD", beside(keys, "waiting")) == 0, "it stands once"


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


# What a start, a read and a claim leave.


async def test_a_result_that_is_asked_for_again_lives_as_long_as_that_start_wants_and_no_shorter(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY, ttl=100)
    await store_backend.store.read(KEY)
    keys = store_backend.keys_of(KEY)
    async with store_backend.announcements() as heard:
        await store_backend.start(KEY, ttl=500)
        await _next(heard, "dropped")  # near-caches have another end of its life
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
        found = await store_backend._client.hkeys(store_backend.keys_of(KEY).record(KEY))
        return {field for field in found if not field.startswith(b"s:")}

    await store_backend.store.start(KEY, plan(), TTL, restart=True, trace="00-trace")
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh"}
    claim = await store_backend.claim()
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh", b"claim"}
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    assert await fields() == {b"about", b"inputs", b"trace", b"fresh"}
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
    left, *reply = await store_backend.store._scripts.status(keys, KEY)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    assert set(fields) == {b"about", b"claim", b"s:first", b"s:second", b"lacks"} - {b"claim"}
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
        await store_backend.store.peek(KEY)


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
        store.peek(KEY),
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


async def test_one_claim_passes_over_a_hundred_late_runs_and_takes_the_next(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(103)
    names = store_backend.keys_of(keys[0])
    queue = store_backend.new_queue()
    queue.expected = lambda: f"probe={90 * SECOND}"
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
        queue.expected = lambda seconds=seconds: f"probe={seconds * SECOND}"
        member = name_of(key)
        score = int(await store_backend.redis("ZSCORE", beside(names, "waiting"), member))
        [job] = await store_backend.jobs("w1", limit=1)
        claim = await queue.claim(job, "w1")
        assert claim is not None
        assert claim.lease.job.key == first, seconds
        await queue.release(claim.lease)
        await store_backend.redis("ZADD", beside(names, "waiting"), score, member)


@pytest.mark.parametrize("how", ["read", "passed over"])
async def test_a_run_of_a_busy_namespace_that_waits_in_vain_is_found_among_a_hundred(
    store_backend: Backend, how: str
) -> None:
    """As far as one start looks at those in front."""
    store = store_backend.new_store(max_live=100 * store_backend.partitions)
    store.expected = store_backend.queue.expected = lambda: f"probe={90 * SECOND}"
    others = store_backend.neighbours(99, namespace="others")
    [late, newcomer] = store_backend.neighbours(2)
    for key in (*others, late):
        await store.start(key, plan(), TTL, restart=False, needed_in=60)
    if how == "passed over":
        places = [x for i, key in enumerate((late, *others)) for x in (2**52 + i, name_of(key))]
        await store_backend.redis("ZADD", beside(store_backend.keys_of(late), "waiting"), *places)
    await store.start(newcomer, plan(), TTL, restart=False)
    assert (await store.read(late)).summary.error.startswith("shed: ")
    with pytest.raises(CapacityExhausted):
        await store.start(RunKey("games", "one more"), plan(), TTL, restart=False)


async def test_a_claim_that_is_given_back_by_a_worker_of_another_version_is_announced(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    at_once = store_backend.new_queue(lease=0)
    [job] = await at_once.lost_jobs(claim.lease.job.partition, "w2", 1)
    async with store_backend.announcements() as heard:
        assert await at_once.claim(job, "w2", [Offer("probe", "v9", {})]) is None
        kinds = [await _next(heard, "released", "unserved") for _ in range(2)]
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
        await _next(heard, "released", member=name_of(found[0].key))
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
    await store_backend.queue.leave("w1")
    assert await store_backend.store.orphans(["probe@v2"], 60, 9) == [], "none computes it today"
    await store_backend.queue.offer(partition, "w2", [new])
    assert len(await store_backend.store.orphans(["probe@v2"], 60, 9)) == 1


# What a sweep, a wait and a count do beside their work.


async def test_a_sweep_forgets_however_many_have_expired(store_backend: Backend) -> None:
    keys = store_backend.keys_of(KEY)
    await store_backend.start(KEY)
    ghosts = [part for i in range(2500) for part in (1, f"games:ghost-{i}")]
    await store_backend.redis("ZADD", keys.expiry, *ghosts)
    assert await sweep(store_backend, keys) == [1000, 1, 0]
    await store_backend.queue.sweep()
    assert await store_backend.redis("ZCARD", keys.expiry) == 1


async def test_a_sweep_brings_no_ticket_where_there_are_enough(store_backend: Backend) -> None:
    first, second, third = store_backend.neighbours(3)
    keys = store_backend.keys_of(first)
    for key in (first, second, third):
        await store_backend.start(key)
    assert len(await store_backend.jobs("w1", limit=2)) == 2
    await sweep(store_backend, keys)
    assert await store_backend.redis("XLEN", keys.jobs) == 3, "two are delivered, one is not"


async def test_runs_that_were_left_for_others_disagree_with_no_index(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    [job] = await store_backend.jobs("w1")
    assert await store_backend.queue.claim(job, "w1", [Offer("probe", "v9", {})]) is None
    assert await sweep(store_backend, store_backend.keys_of(KEY)) == [0, 0, 0]


async def test_an_api_process_that_has_gone_is_forgotten_by_the_next_one(
    store_backend: Backend,
) -> None:
    starters = beside(PartitionKeys(0), "starters")
    for _ in range(3):
        await store_backend.new_store().orphans(["probe@v1"], 0, 10)
    await store_backend.new_store().orphans(["probe@v2"], 60, 10)
    await store_backend.new_store().orphans(["probe@v3"], 60, 10)
    left = sorted(text.split(b" ")[1] for text in await store_backend.redis("HVALS", starters))
    assert left == [b"probe@v2", b"probe@v3"]


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
    await store_backend.store.read(other, waits=True)
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


async def test_what_stands_among_left_runs_and_is_none_is_cleared_away(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY)
    keys = store_backend.keys_of(KEY)
    unserved = beside(keys, "unserved")
    await store_backend.redis("HSET", unserved, "probe@v1", 1, "probe@v2", 1)
    await store_backend.redis("ZADD", f"{unserved}:probe@v1", 5, name_of(KEY))
    offers = [OFFER, Offer("probe", "v2", {})]
    assert await store_backend.queue.unserved_jobs(keys.partition, "w1", offers, 9) == []
    assert await store_backend.redis("EXISTS", unserved) == 0
    assert await store_backend.redis("EXISTS", beside(keys, "waiting")) == 0


class Evictions(Unwatched):
    """Counts runs that are kept no longer, by the reason, and those that were shed."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def evicted(self, kind: str, runs: int) -> None:
        self.of[kind] += runs

    def shed(self, runs: int) -> None:
        self.of["shed"] += runs

    def reclaimed(self, jobs: int) -> None:
        self.of["reclaimed"] += jobs


@pytest.mark.parametrize("call", ["stats", "start", "refused start", "sweep"])
async def test_every_run_that_expired_is_counted_whoever_forgets_it(
    store_backend: Backend, call: str
) -> None:
    counts = Evictions()
    first, second = store_backend.neighbours(2)
    keys = store_backend.keys_of(first)
    client, partitions = store_backend.client(WORKER), store_backend.partitions
    rules = store_backend.rules(max_live=partitions)
    store = RedisStore(client, rules, budget=BUDGET, connections=1, observer=counts)
    queue = RedisJobQueue(client, client, rules, lease=60, budget=BUDGET, observer=counts)
    if call == "refused start":
        await store.start(first, plan(), TTL, restart=False)
    number = 2500 if call in ("stats", "sweep") else 900
    ghosts = [part for i in range(number) for part in (1, f"games:ghost-{i}")]
    await store_backend.redis("ZADD", keys.expiry, *ghosts)
    if call == "stats":
        await store.stats("")
    elif call == "sweep":
        await queue.sweep()
    elif call == "start":
        await store.start(first, plan(), TTL, restart=False)
    else:
        with pytest.raises(CapacityExhausted):
            await store.start(second, plan(), TTL, restart=False)
    assert counts.of == {"expired": number}
    await store.aclose()
    await queue.aclose()


async def test_runs_that_were_shed_and_jobs_that_were_taken_over_are_counted(
    store_backend: Backend,
) -> None:
    counts = Evictions()
    late, newcomer = store_backend.neighbours(2)
    client, rules = (
        store_backend.client(WORKER),
        store_backend.rules(max_live=store_backend.partitions),
    )
    store = RedisStore(client, rules, budget=BUDGET, connections=1, observer=counts)
    queue = RedisJobQueue(client, client, rules, lease=0, budget=BUDGET, observer=counts)
    store.expected = lambda: f"probe={90 * SECOND}"
    await store.start(late, plan(), TTL, restart=False, needed_in=1.0)
    await store.start(newcomer, plan(), TTL, restart=False)
    assert counts.of == {"shed": 1}
    await store_backend.jobs("w1")
    partition = store_backend.keys_of(late).partition
    assert len(await queue.lost_jobs(partition, "w2", 9)) == 2
    assert counts.of == {"shed": 1, "reclaimed": 2}
    await store.aclose()
    await queue.aclose()


async def test_a_refused_start_may_be_repeated_when_as_many_runs_have_ended_as_are_before_it(
    store_backend: Backend,
) -> None:
    """By those of all partitions, which fill alike."""

    class Asked(Pace):
        def delay(self, before: int) -> float:
            asked.append(before)
            return 7.5

    asked: list[int] = []
    partitions = store_backend.partitions
    store = store_backend.new_store(pace=Asked(), max_live=2 * partitions)
    *keys, newcomer = store_backend.neighbours(3)
    for key in keys:
        await store.start(key, plan(), TTL, restart=False)
    with pytest.raises(CapacityExhausted, match=f"{2 * partitions} runs have not ended") as caught:
        await store.start(newcomer, plan(), TTL, restart=False)
    assert (asked, caught.value.retry_after) == ([2 * partitions], 7.5)


@pytest.mark.parametrize(("needed_in", "odd"), [(None, 0), (0.0, 1), (60.0, 1), (60.000001, 1)])
async def test_a_place_in_the_queue_says_whether_the_need_was_declared(
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


async def test_a_run_without_a_ticket_gets_one_though_others_wait_to_be_delivered(
    store_backend: Backend,
) -> None:
    first, second = store_backend.neighbours(2)
    keys = store_backend.keys_of(first)
    await store_backend.start(first)
    await store_backend.start(second)
    [job] = await store_backend.jobs("w1", limit=1)
    await store_backend.queue._scripts.drop(keys, None, entry=job.entry)
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
    await store_backend.queue.leave("w1")
    await store_backend.queue.leave("w3")
    every = await store_backend.redis("HGET", beside(keys, "offers"), "=")
    classes = sorted(line.split(b" ")[1] for line in every.split(b"\n"))
    assert classes == [b"other@v1", b"probe@v1"], "of each pipeline its last offers are known"
    await store_backend.queue.offer(keys.partition, "w4", [Offer("probe", "v2", {})])
    every = await store_backend.redis("HGET", beside(keys, "offers"), "=")
    classes = sorted(line.split(b" ")[1] for line in every.split(b"\n"))
    assert classes == [b"other@v1", b"probe@v2"], "and with a live one no others"


async def test_a_run_that_is_waited_for_has_not_waited_longer_than_that(
    store_backend: Backend,
) -> None:
    """No worker has come yet, and starts are accepted for five minutes."""
    first, second, third = store_backend.neighbours(3)
    waiting = beside(store_backend.keys_of(first), "waiting")
    await store_backend.start(first)
    await store_backend.store.read(first, waits=True)
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
    pending: Any = await store_backend._client.xpending(keys.jobs, GROUP)
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
    store.expected = lambda: f"probe={10 * SECOND}"
    await store.start(KEY, plan(), TTL, restart=False, needed_in=then)
    score = int(await store_backend.redis("ZSCORE", beside(keys, "waiting"), name_of(KEY)))
    assert score % 2 == odd
    assert abs((score - at) / SECOND - due) < 1.5


async def test_a_refusal_says_whose_places_are_taken(store_backend: Backend) -> None:
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
        "error": "worker lost: each try ended or blocked its worker",
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
    assert b"s:first" not in await store_backend._client.hkeys(keys.record(KEY))


async def test_a_run_whose_inputs_are_gone_fails_and_says_so(
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


async def test_runs_of_a_status_stand_in_the_order_of_their_names_alone(
    store_backend: Backend,
) -> None:
    """Redis orders by name only among equal scores."""
    keys = store_backend.neighbours(5)
    names = store_backend.keys_of(keys[0])
    for key in keys:
        await store_backend.start(key)
    claims = [await store_backend.queue.claim(job, "w1") for job in await store_backend.jobs("w1")]
    first, second, third, *_ = [claim.lease for claim in claims if claim]
    await store_backend.queue.release(first)
    await store_backend.queue.finish(second, [done("first")], Status.COMPLETED, "")
    await store_backend.store.cancel(third.job.key)
    await store_backend.start(second.job.key, plan("d2"))
    for status in Status:
        found = await store_backend._client.zrange(
            beside(names, f"status:{status}"), 0, -1, withscores=True
        )
        assert {score for _, score in found} <= {0}, status
        assert [name for name, _ in found] == sorted(name for name, _ in found)
    listed = await store_backend.store.list("games", list(Status), None, 9)
    assert [run.key.key for run in listed] == sorted(key.key for key in keys)
