"""What is kept beside the records: its bounds, its ends, and what mends it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from headstart_service.domain import (
    Lack,
    Offer,
    Status,
    WorkerState,
)
from headstart_service.domain.errors import CapacityExhausted, LayoutMismatch
from headstart_service.store.connect import WORKER
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.keys import GROUP, PartitionKeys
from headstart_service.store.layout import StoreLayout
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.repartition import StoreInUse, repartition
from headstart_service.store.store_observer import Unwatched
from tests.contract.backend import BUDGET, OFFER, TTL, Backend, done, plan
from tests.contract.beside import (
    HOUR,
    KEY,
    SECOND,
    beside,
    now_us,
    start_all,
    sweep,
)
from tests.support.waiting import wait_until


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
        found: Any = await store_backend.raw.xinfo_consumers(keys.jobs, GROUP)
        return all(each["idle"] > 1 for each in found)

    await wait_until(silent)
    prepare = store_backend.scripts.prepare
    assert await prepare(keys, None, idle_ms=60_000) == 0
    assert await prepare(keys, None, idle_ms=1) == 1
    [left] = await store_backend.raw.xinfo_consumers(keys.jobs, GROUP)
    assert left["name"] == b"holds a job"


async def test_a_worker_that_leaves_offers_nothing_any_more_and_hands_on_all_it_held(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(1010)
    names = store_backend.keys_of(keys[0])
    await start_all(store_backend, keys)
    await store_backend.queue.offer(names.partition, "w1", [OFFER])
    assert len(await store_backend.jobs("w1", limit=10_000)) == 1010
    deregister = store_backend.scripts.deregister
    assert await deregister(names, None, worker="w1") == 1010
    assert (await store_backend.store.read(keys[0])).summary.lacks is Lack.WORKER
    jobs = await store_backend.jobs("w2", limit=10_000)
    assert sorted(job.key.key for job in jobs) == sorted(key.key for key in keys)


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
    await store_backend.queue.heartbeat(state("w1"), 60)
    assert set(await store_backend.redis("HKEYS", roster)) == {b"soon", b"w1"}
    await store_backend.redis("PEXPIRE", roster, 30_000)
    await store_backend.queue.heartbeat(state("w1"), 60)
    assert 50_000 < await store_backend.redis("PTTL", roster) <= 60_000


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


async def test_the_time_is_noted_every_four_seconds_and_not_at_each_read(
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
    store = RedisStore(
        client,
        rules,
        budget=BUDGET,
        connections=1,
        observer=counts,
        expected=lambda: {"probe": 90 * SECOND},
    )
    queue = RedisJobQueue(client, client, rules, lease=0, budget=BUDGET, observer=counts)
    await store.start(late, plan(), TTL, restart=False, needed_in=1.0)
    await store.start(newcomer, plan(), TTL, restart=False)
    assert counts.of == {"shed": 1}
    await store_backend.jobs("w1")
    partition = store_backend.keys_of(late).partition
    assert len(await queue.lost_jobs(partition, "w2", 9)) == 2
    assert counts.of == {"shed": 1, "reclaimed": 2}
    await store.aclose()
    await queue.aclose()


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
        found = await store_backend.raw.zrange(
            beside(names, f"status:{status}"), 0, -1, withscores=True
        )
        assert {score for _, score in found} <= {0}, status
        assert [name for name, _ in found] == sorted(name for name, _ in found)
    listed = await store_backend.store.list("games", list(Status), None, 9)
    assert [run.key.key for run in listed] == sorted(key.key for key in keys)
