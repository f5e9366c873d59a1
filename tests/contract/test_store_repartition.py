"""A store moves to another number of partitions, and nothing is lost: not even when it is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from headstart_service.domain import Awaits, Fate, RunKey, Status, StepState
from headstart_service.domain.errors import LayoutMismatch, StartupError
from headstart_service.store.connect import WORKER, open_client
from headstart_service.store.keys import FIXED, PartitionKeys, partition_of
from headstart_service.store.layout import Layout, StoreLayout, stored_layout
from headstart_service.store.repartition import Moved, adopt_empty, repartition
from tests.contract.backend import TTL, Backend, done, plan, running
from tests.support.consistency import inconsistencies

SETS = ("expiry", "unread", "read", *(f"status:{status}" for status in Status), "waiting")
HASHES = ("unsettled",)
LEDGER = FIXED.index("ledger")
ELSEWHERE = ("jobs", "tickets", "ledger", "unserved", "offers", "starters", "layout")
"""What has no entry for each run, or another after a move; other tests compare it."""


async def _populated(backend: Backend, size: int) -> dict[str, list[RunKey]]:
    """Runs of every kind, in two namespaces."""
    runs = {
        kind: [RunKey(f"ns{i % 2}", f"{kind}-{i}") for i in range(size)]
        for kind in ("read", "unread", "failed", "cancelled", "lost", "queued")
    }
    await backend.complete(*runs["read"], *runs["unread"])
    for key in runs["read"]:
        await backend.store.read(key)
    for key in (*runs["failed"], *runs["lost"]):
        claim = await backend.begin(key)
        if key in runs["failed"]:
            await backend.queue.finish(claim.lease, [done("first")], Status.FAILED, "no luck")
        else:
            await backend.queue.commit(claim.lease, [done("first")], [running("second")])
    for key in runs["cancelled"]:
        await backend.start(key)
        await backend.store.cancel(key)
    for i, key in enumerate(runs["queued"]):
        await backend.store.start(key, plan(), TTL, restart=False, needed_in=float(i % 3) or None)
    await backend.store.read(runs["queued"][-1], awaits=Awaits.END)
    return runs


async def _picture(backend: Backend) -> dict[str, Any]:
    """All that the store keeps of runs, whatever partition it is in."""
    assert {*SETS, *HASHES, *ELSEWHERE} == set(FIXED), "a new key must be moved, too"
    picture: dict[str, Any] = {"records": {}, **{name: {} for name in (*SETS, *HASHES)}}
    for partition in range(backend.partitions):
        keys = PartitionKeys(partition)
        for name, key in zip(FIXED, keys.fixed, strict=True):
            if name in SETS:
                found = await backend.redis("ZRANGE", key, 0, -1, "WITHSCORES")
            elif name in HASHES:
                found = await backend.redis("HGETALL", key)
            else:
                continue
            pairs = (
                found
                if isinstance(found, dict)
                else dict(zip(found[::2], found[1::2], strict=True))
            )
            assert not pairs.keys() & picture[name].keys(), "in two partitions at once"
            picture[name] |= pairs
        for name in await backend.redis("ZRANGE", keys.expiry, 0, -1):
            record = await backend.redis("HGETALL", keys.record_prefix + name.decode())
            if not isinstance(record, dict):
                record = dict(zip(record[::2], record[1::2], strict=True))
            picture["records"][name] = record
    stats = await backend.store.stats("")
    picture["ledgers"] = [
        stats.ledger,
        *[(await backend.store.stats(f"ns{i}")).ledger for i in (0, 1)],
    ]
    picture["counts"] = stats.counts
    return picture


def _requeued(picture: dict[str, Any], runs: dict[str, list[RunKey]]) -> dict[str, Any]:
    """The picture without what a lost worker had begun: a move may hand that on, or leave it."""
    lost = {f"{key.namespace}:{key.key}".encode() for key in runs["lost"]}
    live = lost | {f"{key.namespace}:{key.key}".encode() for key in runs["queued"]}
    kept = {
        name: {member: value for member, value in part.items() if member not in lost}
        for name, part in picture.items()
        if isinstance(part, dict) and name != "counts"
    }
    for member in live & kept["records"].keys():  # its job has another name
        about = kept["records"][member][b"about"].split(b" ")
        kept["records"][member] = kept["records"][member] | {
            b"about": b" ".join([*about[:5], *about[6:]])
        }
    assert set(picture["records"]) >= lost
    return kept | {"ledgers": picture["ledgers"], "kept": sum(picture["counts"].values())}


async def _all_computed(backend: Backend, runs: dict[str, list[RunKey]]) -> None:
    """Every run that had not ended is computed by other workers, once."""
    live = {*runs["lost"], *runs["queued"]}
    computed: list[RunKey] = []
    jobs = await backend.jobs("w2")
    again = backend.new_queue(lease=0)
    for partition in range(backend.partitions):
        jobs += await again.lost_jobs(partition, "w2", 100)
    for job in dict.fromkeys(jobs):
        claim = await backend.queue.claim(job, "w2")
        if claim is None:
            continue
        key = claim.lease.job.key
        assert ("first" in claim.ended) == (key in runs["lost"]), "ended steps are kept"
        ended = [done(name) for name in ("first", "second") if name not in claim.ended]
        await backend.queue.finish(claim.lease, ended, Status.COMPLETED, "")
        computed.append(key)
    assert sorted(computed, key=str) == sorted(live, key=str)


async def test_everything_is_there_after_a_move_and_back(store_backend: Backend) -> None:
    own = store_backend.partitions
    runs = await _populated(store_backend, 8)
    before = _requeued(await _picture(store_backend), runs)
    for count in (own + 2, own):
        result = await repartition(store_backend.client(WORKER), count, lambda _: None)
        assert result is not None
        assert result.moved > 0
        async with Backend.open(store_backend.deployment, count) as moved:
            assert _requeued(await _picture(moved), runs) == before
            assert inconsistencies(store_backend.deployment.masters, count) == []
            for key in runs["lost"]:
                lost = await moved.store.status(key)
                queued = lost.summary.status is Status.PENDING
                assert lost.states["second"] is (StepState.PENDING if queued else StepState.RUNNING)
            listed = await moved.store.list("", list(Status), None, 1000)
            assert len(listed) == 6 * 8
    used = {int(key.split("{")[1].split("}")[0]) for key in store_backend.deployment.ttls()}
    assert used <= set(range(own)), "nothing is left in partitions that were given up"
    await _all_computed(store_backend, runs)
    for keys in runs.values():
        for key in keys:
            await store_backend.store.read(key)
    ledger = (await store_backend.store.stats("")).ledger
    assert ledger is not None
    assert (ledger.starts, ledger.open) == (6 * 8, 0), "what moved is settled where it is"


async def test_a_move_in_many_pieces_leaves_no_run_where_it_was(
    store_backend: Backend,
) -> None:
    own = store_backend.partitions
    keys = {RunKey("games", f"{i}") for i in range(40)}
    for key in keys:
        await store_backend.start(key)
    for count in (own + 1, own):
        result = await repartition(store_backend.client(WORKER), count, lambda _: None, chunk=3)
        assert result is not None
        assert result.runs == len(keys)
        async with Backend.open(store_backend.deployment, count) as moved:
            assert inconsistencies(store_backend.deployment.masters, count) == []
            for key in keys:
                assert (await moved.store.status(key)).summary.status is Status.PENDING


async def test_the_queue_keeps_its_order_over_a_move(store_backend: Backend) -> None:
    own = store_backend.partitions
    keys = [RunKey("games", f"{i}") for i in range(12)]
    for key in keys:
        await store_backend.start(key)
    await repartition(store_backend.client(WORKER), 1 if own > 1 else 2, lambda _: None)
    await repartition(store_backend.client(WORKER), 1, lambda _: None)
    async with Backend.open(store_backend.deployment, 1) as moved:
        claims = [await moved.queue.claim(job, "w1") for job in await moved.jobs()]
        assert [claim.lease.job.key for claim in claims if claim] == keys
    await repartition(store_backend.client(WORKER), own, lambda _: None)


async def test_a_last_try_that_is_set_aside_is_queued_again_by_a_move(
    store_backend: Backend,
) -> None:
    """The worker for which it stood there has gone."""
    own = store_backend.partitions
    key, *_ = [
        each
        for each in store_backend.neighbours(40)
        if partition_of(each, own) != partition_of(each, own + 1)
    ]
    await store_backend.begin(key)
    at_once = store_backend.new_queue(lease=0)
    names = store_backend.keys_of(key)
    [job] = await at_once.lost_jobs(names.partition, "w1", 1)
    assert await at_once.claim(job, "w1")
    words = (await store_backend.redis("HGET", names.record(key), "about")).split(b" ")
    words[0] = b"pending"
    await store_backend.redis("HSET", names.record(key), "about", b" ".join(words))
    member = f"{key.namespace}:{key.key}"
    await store_backend.redis("ZADD", names.fixed[FIXED.index("waiting")], "inf", member)
    await repartition(store_backend.client(WORKER), own + 1, lambda _: None)
    async with Backend.open(store_backend.deployment, own + 1) as moved:
        claims = [await moved.queue.claim(job, "w2") for job in await moved.jobs("w2")]
        assert [claim.lease.job.key for claim in claims if claim] == [key]
    await repartition(store_backend.client(WORKER), own, lambda _: None)


async def test_the_sums_of_a_partition_that_is_given_up_are_another_ones(
    store_backend: Backend,
) -> None:
    own = store_backend.partitions
    await repartition(store_backend.client(WORKER), own + 1, lambda _: None)
    async with Backend.open(store_backend.deployment, own + 1) as wide:
        for partition in range(own + 1):
            for namespace in ("games", "quiz", f"only-{partition}"):
                [key] = wide.neighbours(1, partition, namespace=namespace)
                await wide.start(key)
        [lost] = wide.neighbours(1, own, name="lost")
        await wide.start(lost)
        keys = wide.keys_of(lost)
        await wide.redis("DEL", keys.record(lost))
        await wide.redis("ZREM", keys.expiry, f"games:{lost.key}")
        before = {ns: (await wide.store.stats(ns)).ledger for ns in ("", "games", f"only-{own}")}
        heir, given_up = (PartitionKeys(p).fixed[LEDGER] for p in (0, own))
        for ledger, pipelines in ((heir, "b d"), (given_up, "a b c")):
            await wide.redis("HSET", ledger, "* pipelines", pipelines)
    await repartition(store_backend.client(WORKER), own, lambda _: None)
    for namespace, ledger in before.items():
        after = (await store_backend.store.stats(namespace)).ledger
        assert after is not None
        assert ledger is not None
        assert (after.starts, after.since_us) == (ledger.starts, ledger.since_us), namespace
        expired = after.fates[Fate.EXPIRED].runs
        assert expired == (0 if namespace.startswith("only") else 1), "its record had gone"
    assert await store_backend.redis("HGET", heir, "* pipelines") == b"b d a c"
    for partition in range(own):
        names = set(await store_backend.redis("HKEYS", PartitionKeys(partition).fixed[LEDGER]))
        assert not [name for name in names if name.startswith(b"moved/")]
        books = {name for name in names if name.endswith(b" starts")} - {b"* starts"}
        counted = await store_backend.redis(
            "HGET", PartitionKeys(partition).fixed[LEDGER], "namespaces"
        )
        assert int(counted) == len(books)


async def test_a_run_that_is_moved_is_queued_and_ready_for_a_claim(store_backend: Backend) -> None:
    own = store_backend.partitions
    moving = [
        key
        for key in store_backend.neighbours(60)
        if partition_of(key, own) != partition_of(key, own + 1)
    ]
    for key in moving[:3]:
        await store_backend.begin(key)
    await repartition(store_backend.client(WORKER), own + 1, lambda _: None)
    async with Backend.open(store_backend.deployment, own + 1) as moved:
        for key in moving[:3]:
            assert b"claim" not in await moved.record(key)
        claims = [await moved.queue.claim(job, "w2") for job in await moved.jobs("w2")]
        found = {claim.lease.job.key: claim.lease.attempt for claim in claims if claim}
        assert found == dict.fromkeys(moving[:3], 2)
    await repartition(store_backend.client(WORKER), own, lambda _: None)


class _Killed(Exception):
    """The process of a move ends here."""


async def test_a_move_that_is_killed_on_its_way_is_finished_and_goes_nowhere_else(
    store_backend: Backend,
) -> None:
    own = store_backend.partitions
    keys = [RunKey("games", f"{i}") for i in range(30)]
    for key in keys:
        await store_backend.start(key)
    client = store_backend.client(WORKER)

    def killed(_: Moved) -> None:
        raise _Killed

    with pytest.raises(_Killed):
        await repartition(client, own + 2, killed)
    assert await stored_layout(client) == str(Layout(own, target=own + 2))
    with pytest.raises(LayoutMismatch, match=f"being moved from {own} to {own + 2} partitions"):
        await store_backend.store.status(keys[0])
    for other in (own, own + 1):
        with pytest.raises(StartupError, match=f"finish it with .*--to {own + 2}"):
            await repartition(client, other, lambda _: None)
    await adopt_empty(client, Layout(own + 1))
    assert await stored_layout(client) == str(Layout(own, target=own + 2)), "runs are kept"
    assert await repartition(client, own + 2, lambda _: None) is not None
    assert await repartition(client, own + 2, lambda _: None) is None, "nothing is left to do"
    async with Backend.open(store_backend.deployment, own + 2) as moved:
        assert await moved.kept(keys) == keys
    await repartition(client, own, lambda _: None)


async def test_what_stands_where_a_run_is_moved_to_gives_way(store_backend: Backend) -> None:
    own = store_backend.partitions
    text, stale = [
        each
        for each in store_backend.neighbours(60)
        if partition_of(each, own) != partition_of(each, own + 1)
    ][:2]
    for key, command in ((text, ("SET", "x")), (stale, ("HSET", "s:third", "Cold"))):
        await store_backend.start(key)
        name, *values = command
        target = PartitionKeys(partition_of(key, own + 1)).record(key)
        await store_backend.redis(name, target, *values)
        await store_backend.redis("PEXPIRE", target, 60_000)
    await repartition(store_backend.client(WORKER), own + 1, lambda _: None)
    async with Backend.open(store_backend.deployment, own + 1) as moved:
        for key in (text, stale):
            assert set((await moved.store.status(key)).states) == {"first", "second"}
    await repartition(store_backend.client(WORKER), own, lambda _: None)


async def test_an_empty_store_that_is_being_moved_is_left_to_that_move(
    store_backend: Backend,
) -> None:
    own = store_backend.partitions
    client, moving = store_backend.client(WORKER), str(Layout(own, target=own + 2))
    for partition in range(own):
        await store_backend.redis("SET", PartitionKeys(partition).layout, moving)
    await adopt_empty(client, Layout(own + 1))
    assert await stored_layout(client) == moving
    await adopt_empty(client, Layout(own + 2))
    assert await stored_layout(client) == str(Layout(own + 2))
    await adopt_empty(client, Layout(own))
    assert await stored_layout(client) == str(Layout(own))


async def test_a_move_counts_what_it_moves_and_what_it_finds_damaged(
    store_backend: Backend,
) -> None:
    own = store_backend.partitions
    keys = store_backend.neighbours(60)
    for key in keys:
        await store_backend.start(key)
    moving = [key for key in keys if partition_of(key, own) != partition_of(key, own + 1)]
    names = store_backend.keys_of(moving[0])
    await store_backend.redis("HSET", names.record(moving[0]), "about", "what is this")
    await store_backend.redis("ZADD", names.expiry, 2**52, b"games:\xff")
    steps = []
    result = await repartition(
        store_backend.client(WORKER),
        own + 1,
        lambda moved: steps.append((moved.seen, moved.moved, moved.damaged)),
    )
    assert result is not None
    assert (result.runs, result.moved, result.damaged) == (61, len(moving) - 1, 1)
    assert steps == sorted(steps)
    assert steps[-1][1:] == (len(moving) - 1, 1)
    assert 60 <= steps[-1][0] <= 61, "the damaged one may have been met"
    async with Backend.open(store_backend.deployment, own + 1) as moved:
        assert sorted(key.key for key in await moved.kept(keys)) == sorted(
            key.key for key in keys if key != moving[0]
        )
    await repartition(store_backend.client(WORKER), own, lambda _: None)


EVERY = int(os.environ.get("TEST_KILL_EVERY", "5"))
"""Of so many commands one: with 1 it takes half a minute."""


class _Mortal(Redis):
    """A client whose process is killed behind its n-th command."""

    left = 0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _Killed
        reply = await super().execute_command(*args, **options)
        if self.left == 0:
            raise _Killed
        return reply


@pytest.mark.parametrize(("old", "new", "first"), [(1, 3, 1), (3, 2, 3)])
async def test_a_move_that_is_killed_after_any_command_is_finished_by_the_next(
    store_backend: Backend, old: int, new: int, first: int
) -> None:
    if store_backend.deployment.url.split(":")[0] != "redis" or store_backend.partitions != 4:
        pytest.skip("one deployment shows it")
    before: dict[str, Any] | None = None
    for left in range(first, 300, EVERY):
        store_backend.deployment.wipe()
        async with AsyncExitStack() as stack:
            start = await stack.enter_async_context(Backend.open(store_backend.deployment, old))
            runs = await _populated(start, 3)
            before = _requeued(await _picture(start), runs)
            pool = open_client(store_backend.deployment.url, WORKER).connection_pool
            mortal = _Mortal.from_pool(pool)
            mortal.left = left
            stack.push_async_callback(mortal.aclose)
            died = False
            try:
                await repartition(mortal, new, lambda _: None)
            except _Killed:
                died = True
            if died and await stored_layout(start.client(WORKER)) != str(Layout(new)):
                await repartition(start.client(WORKER), new, lambda _: None)
            moved = await stack.enter_async_context(Backend.open(store_backend.deployment, new))
            assert _requeued(await _picture(moved), runs) == before, f"killed at command {left}"
            assert inconsistencies([store_backend.deployment.url], new) == []
            await _all_computed(moved, runs)
            if not died:
                break
    else:
        raise AssertionError("the move never came to its end")
    assert left > 20, "it was killed many times"


async def test_two_moves_at_once_do_no_harm(store_backend: Backend) -> None:
    own = store_backend.partitions
    runs = await _populated(store_backend, 8)
    before = _requeued(await _picture(store_backend), runs)

    results = await asyncio.gather(
        *(repartition(store_backend.client(WORKER), own + 2, lambda _: None) for _ in range(3)),
        return_exceptions=True,
    )
    assert any(not isinstance(result, Exception) for result in results), results
    async with Backend.open(store_backend.deployment, own + 2) as moved:
        assert _requeued(await _picture(moved), runs) == before
        await _all_computed(moved, runs)
    await repartition(store_backend.client(WORKER), own, lambda _: None)


class _Overtaken:
    """A client whose first ZCARD, in the middle of a move, lets another process move the store."""

    def __init__(self, client: Any, rival: Callable[[], Awaitable[Any]]) -> None:
        self._client, self._rival = client, rival
        self._overtaken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def zcard(self, key: str) -> int:
        if not self._overtaken:
            self._overtaken = True
            await self._rival()
        return int(await self._client.zcard(key))


@pytest.mark.parametrize("more", [2, -1])
async def test_a_move_that_another_process_ends_first_has_ended(
    store_backend: Backend, more: int
) -> None:
    client, own = store_backend.client(WORKER), store_backend.partitions + 3
    await StoreLayout(client, own).agree_all("", 0)
    target = own + more
    rival = partial(repartition, client, target, lambda _: None)
    overtaken: Any = _Overtaken(client, rival)
    assert await repartition(overtaken, target, lambda _: None) is not None
    assert await stored_layout(client) == str(Layout(target))
    store_backend.deployment.wipe()
