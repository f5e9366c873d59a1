"""Memos: kept by namespace and digest, bounded, each with a TTL, and a damaged one is no memo."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import StartupError
from headstart_service.store.connect import WORKER
from headstart_service.store.keys import PartitionKeys, memo_partition
from headstart_service.store.memos import RedisMemos
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.store_rules import StoreRules
from tests.contract.backend import BUDGET, TTL, Backend, done, plan
from tests.support.deployments import Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIMIT = 8
Damage = Callable[[Backend, str], Awaitable[object]]


class Looks(Unwatched):
    """Counts what became of looks."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def looked(self, result: str) -> None:
        self.of[result] += 1


class Memos:
    """A memo store on a backend, with what was told of it."""

    def __init__(
        self, backend: Backend, *, limit: int = LIMIT, ttl: float = 60.0, budget: float = BUDGET
    ) -> None:
        self.looks = Looks()
        self.backend = backend
        rules = backend.rules(max_memos=limit)
        self.store = RedisMemos(
            backend.client(WORKER), rules, ttl=ttl, budget=budget, observer=self.looks
        )

    def key(self, namespace: str, digest: str) -> str:
        partition = memo_partition(namespace, digest, self.backend.partitions)
        return PartitionKeys(partition).memo_prefix + f"{namespace}:{digest}"

    def neighbours(self, number: int) -> list[str]:
        """So many digests of one partition."""
        found = (f"d{i}" for i in range(10_000))
        mine = (d for d in found if memo_partition("games", d, self.backend.partitions) == 0)
        return [next(mine) for _ in range(number)]

    async def held(self, *digests: str) -> list[str]:
        return [d for d in digests if await self.store.memo_get("games", d) is not None]


@pytest.fixture
async def memos(store_backend: Backend) -> AsyncIterator[Memos]:
    async with AsyncExitStack() as stack:
        made = Memos(store_backend)
        stack.push_async_callback(made.store.aclose)
        yield made


async def test_a_memo_is_there_for_its_own_namespace_and_digest_alone(memos: Memos) -> None:
    assert await memos.store.memo_get("games", "d") is None
    await memos.store.memo_put("games", "d", b"\x00result\xff")
    assert await memos.store.memo_get("games", "d") == b"\x00result\xff"
    assert await memos.store.memo_get("other", "d") is None
    assert await memos.store.memo_get("games", "e") is None
    assert memos.looks.of == {"hit": 1, "miss": 3}
    await memos.store.memo_put("games:a", "d", b"another")
    assert await memos.store.memo_get("games:a", "d") == b"another"
    assert await memos.store.memo_get("games", "d") == b"\x00result\xff"


async def test_an_empty_result_is_a_memo_too_and_a_later_one_replaces_it(memos: Memos) -> None:
    await memos.store.memo_put("games", "d", b"")
    assert await memos.store.memo_get("games", "d") == b""
    await memos.store.memo_put("games", "d", b"new")
    assert await memos.store.memo_get("games", "d") == b"new"


async def test_a_memo_expires_however_often_it_is_used(store_backend: Backend) -> None:
    short = Memos(store_backend, ttl=0.2)
    await short.store.memo_put("games", "d", b"result")

    async def gone() -> bool:
        return await short.store.memo_get("games", "d") is None

    await wait_until(gone)
    await short.store.aclose()


@pytest.mark.parametrize(("first", "then"), [(60.0, 20.0), (20.0, 60.0)])
async def test_the_index_lives_as_long_as_the_last_of_its_memos(
    store_backend: Backend, first: float, then: float
) -> None:
    one, two = Memos(store_backend, ttl=first), Memos(store_backend, ttl=then)
    a, b = one.neighbours(2)
    await one.store.memo_put("games", a, b"x")
    await two.store.memo_put("games", b, b"x")
    assert await one.held(a, b) == [a, b]
    ends = [await store_backend.redis("PEXPIRETIME", one.key("games", d)) for d in (a, b)]
    index = await store_backend.redis("PEXPIRETIME", PartitionKeys(0).memos)
    assert index == max(ends) > min(ends) + 30_000
    await one.store.aclose()
    await two.store.aclose()


async def test_a_memo_that_has_expired_takes_no_place_of_another(store_backend: Backend) -> None:
    memos, short = Memos(store_backend), Memos(store_backend, ttl=0.05)
    a, b = memos.neighbours(2)
    await memos.store.memo_put("games", a, b"x")
    await short.store.memo_put("games", b, b"x")

    async def gone() -> bool:
        return await memos.held(a, b) == [a]

    await wait_until(gone)
    assert await store_backend.redis("ZCARD", PartitionKeys(0).memos) == 1
    await memos.store.aclose()
    await short.store.aclose()


async def test_of_too_many_memos_those_go_that_were_used_longest_ago(
    store_backend: Backend,
) -> None:
    few = Memos(store_backend, limit=3 * store_backend.partitions)
    a, b, c, d = few.neighbours(4)
    for digest in (a, b, c):
        await few.store.memo_put("games", digest, b"x")
    assert await few.held(a) == [a]
    await few.store.memo_put("games", d, b"x")
    assert await few.held(a, b, c, d) == [a, c, d]
    assert await store_backend.redis("EXISTS", few.key("games", b)) == 0
    await few.store.aclose()


async def test_many_at_once_never_keep_more_than_the_limit(store_backend: Backend) -> None:
    few = Memos(store_backend, limit=3 * store_backend.partitions)
    digests = few.neighbours(40)
    await asyncio.gather(*(few.store.memo_put("games", digest, b"x") for digest in digests))
    assert await store_backend.redis("ZCARD", PartitionKeys(0).memos) == 3
    assert len(await few.held(*digests)) == 3
    await few.store.aclose()


async def test_a_lowered_limit_holds_from_the_next_memo_on(memos: Memos) -> None:
    digests = memos.neighbours(LIMIT // memos.backend.partitions)
    for digest in digests:
        await memos.store.memo_put("games", digest, b"x")
    lower = Memos(memos.backend, limit=memos.backend.partitions)
    await lower.store.memo_put(
        "games", "zz" if memos.backend.partitions == 1 else digests[-1], b"x"
    )
    assert len(await lower.held(*digests, "zz")) == 1
    await lower.store.aclose()


async def test_a_limit_that_cannot_be_shared_out_is_refused() -> None:

    with pytest.raises(StartupError, match="HEADSTART_MAX_MEMOS: 3 cannot be shared out among 4"):
        StoreRules(partitions=4, max_records=10, failure_ttl=1, max_memos=3)


async def _list(backend: Backend, key: str) -> None:
    await backend.redis("UNLINK", key)
    await backend.redis("RPUSH", key, "x")
    await backend.redis("PEXPIRE", key, 60_000)


async def _flipped(backend: Backend, key: str) -> None:
    value = bytearray(await backend.redis("GET", key))
    value[-1] ^= 1
    await backend.redis("SET", key, bytes(value), "KEEPTTL")


async def _cut(backend: Backend, key: str) -> None:
    value = await backend.redis("GET", key)
    await backend.redis("SET", key, value[:-1], "KEEPTTL")


DAMAGES: dict[str, Damage] = {
    "empty": lambda b, k: b.redis("SET", k, b"", "KEEPTTL"),
    "short": lambda b, k: b.redis("SET", k, b"x", "KEEPTTL"),
    "random bytes": lambda b, k: b.redis("SET", k, bytes(range(256)), "KEEPTTL"),
    "a flipped bit": _flipped,
    "cut off": _cut,
    "a list": _list,
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_memo_is_a_miss_that_is_counted_and_the_next_one_heals_it(
    memos: Memos, name: str
) -> None:
    await memos.store.memo_put("games", "d", b"result")
    await DAMAGES[name](memos.backend, memos.key("games", "d"))
    assert await memos.store.memo_get("games", "d") is None
    assert memos.looks.of == {"damaged": 1}
    if name == "a list":
        assert await memos.store.memo_get("games", "d") is None
        assert memos.looks.of == {"damaged": 1, "miss": 1}, "it is no memo of ours, and gone"
    await memos.store.memo_put("games", "d", b"result")
    assert await memos.store.memo_get("games", "d") == b"result"


async def test_a_memo_under_another_ones_key_is_damaged(store_backend: Backend) -> None:
    memos = Memos(store_backend)
    await memos.store.memo_put("games", "d", b"result")
    value = await store_backend.redis("GET", memos.key("games", "d"))
    await store_backend.redis("SET", memos.key("other", "d"), value, "PX", 60_000)
    assert await memos.store.memo_get("other", "d") is None
    assert memos.looks.of == {"damaged": 1}
    await memos.store.aclose()


async def test_an_index_of_another_type_is_made_anew(memos: Memos) -> None:
    [digest] = memos.neighbours(1)
    await memos.store.memo_put("games", digest, b"result")
    await _list(memos.backend, PartitionKeys(0).memos)
    assert await memos.store.memo_get("games", digest) == b"result"
    await memos.store.memo_put("games", digest, b"result")
    assert await memos.backend.redis("ZCARD", PartitionKeys(0).memos) == 1


async def test_a_memo_that_is_used_makes_no_index_that_nothing_ends(memos: Memos) -> None:
    await memos.store.memo_put("games", "d", b"result")
    partition = memo_partition("games", "d", memos.backend.partitions)
    index = PartitionKeys(partition).memos
    await memos.backend.redis("DEL", index)
    assert await memos.store.memo_get("games", "d") == b"result"
    assert await memos.backend.redis("EXISTS", index) == 0
    await memos.store.memo_put("games", "d", b"result")
    assert await memos.backend.redis("ZCARD", index) == 1


async def test_what_is_away_remembers_nothing_and_fails_soon(valkey: Valkey) -> None:
    async with Backend.open(Deployment(valkey.url, (valkey.url,)), 1) as backend:
        memos = Memos(backend, budget=0.25)
        await memos.store.memo_put("games", "d", b"result")
        assert valkey.process is not None
        valkey.process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                assert await memos.store.memo_get("games", "d") is None
                await memos.store.memo_put("games", "d", b"result")
        finally:
            valkey.process.send_signal(signal.SIGCONT)
        assert memos.looks.of == {"away": 1}
        await memos.store.aclose()


async def test_a_claim_shows_that_its_run_was_restarted_and_no_other_record_grows(
    store_backend: Backend,
) -> None:
    key = RunKey("games", "game-1")
    await store_backend.start(key)
    assert "fresh" not in {name.decode() for name in await store_backend.record(key)}
    assert not (await store_backend.claim()).fresh
    await store_backend.store.start(key, plan(), TTL, restart=True)
    claim = await store_backend.claim()
    assert claim.fresh
    # Handed on, it is still the same start.
    await store_backend.queue.release(claim.lease)
    again = await store_backend.claim("w2")
    assert again.fresh

    ended = [done("first"), done("second")]
    await store_backend.queue.finish(again.lease, ended, Status.COMPLETED, "")
    assert b"fresh" not in await store_backend.record(key)


async def test_what_is_full_remembers_nothing_new(valkey: Valkey) -> None:
    async with Backend.open(Deployment(valkey.url, (valkey.url,)), 1) as backend:
        memos = Memos(backend)
        await memos.store.memo_put("games", "d", b"result")
        await backend.redis("CONFIG", "SET", "maxmemory", "1")
        await memos.store.memo_put("games", "e", b"result")
        await backend.redis("CONFIG", "SET", "maxmemory", "0")
        assert await memos.held("d", "e") == ["d"]
        await memos.store.aclose()
