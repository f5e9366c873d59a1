"""Calls that travel together: who shares a trip, and who shares its fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from headstart_service.domain.errors import CapacityExhausted, StoreUnavailable
from headstart_service.store.batches import ScriptBatches
from headstart_service.store.keys import FIXED, PartitionKeys
from headstart_service.store.layout import StoreLayout
from tests.support.virtual_time import run_virtually
from tests.support.waiting import wait_until


class FakeRedis:
    """Answers each call with its first argument, once `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.fails: Exception | None = None
        self.fit = 100
        """How many replies a trip brings: scripts leave calls behind large replies undone."""

    def register_script(self, script: str) -> Any:
        async def run(keys: Sequence[str], args: Sequence[Any]) -> list[Any]:
            calls, at = [], 5
            for _ in range(args[4]):
                calls.append(args[at + 1])
                at += 1 + args[at]
            assert len(keys) == len(FIXED) + len(calls)
            self.batches.append(calls)
            await self.gate.wait()
            if self.fails:
                raise self.fails
            done = calls[: self.fit]
            return [ResponseError("no") if call == "bad" else f"{script} {call}" for call in done]

        return run


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
async def batches(redis: FakeRedis) -> AsyncIterator[ScriptBatches]:
    made = ScriptBatches(
        redis, {"a": "A", "b": "B"}, budget=5.0, connections=2, layout=StoreLayout(redis, 1)
    )
    yield made
    await made.aclose()


def ask(batches: ScriptBatches, text: str, script: str = "a", partition: int = 0) -> Any:
    keys = PartitionKeys(partition)
    return asyncio.ensure_future(batches.call(script, keys, f"run:{text}", [text]))


async def held(batches: ScriptBatches, redis: FakeRedis) -> Any:
    """One call that is under way and does not end."""
    redis.gate.clear()
    first = ask(batches, "first")
    await wait_until(lambda: len(redis.batches) == 1)
    return first


async def test_what_is_asked_during_a_trip_shares_the_next(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    others = [ask(batches, str(i)) for i in range(10)]
    await asyncio.sleep(0.01)
    redis.gate.set()
    assert await first == "A first"
    assert await asyncio.gather(*others) == [f"A {i}" for i in range(10)]
    assert redis.batches == [["first"], [str(i) for i in range(10)]]


async def test_scripts_and_partitions_do_not_wait_for_each_other(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    others = [ask(batches, "b", "b"), ask(batches, "p", "a", 1)]
    await wait_until(lambda: len(redis.batches) == 2)
    redis.gate.set()
    assert await asyncio.gather(first, *others) == ["A first", "B b", "A p"]


async def test_a_batch_is_bounded_in_calls_and_bytes(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    many = [ask(batches, f"{i}") for i in range(40)]
    large = [ask(batches, "x" * 700_000) for _ in range(2)]
    await asyncio.sleep(0)
    redis.gate.set()
    await asyncio.gather(first, *many, *large)
    assert [len(batch) for batch in redis.batches] == [1, 32, 9, 1]


async def test_calls_that_a_large_reply_left_undone_go_first_in_the_next_batch(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    others = [ask(batches, str(i)) for i in range(5)]
    await asyncio.sleep(0)
    redis.fit = 2
    redis.gate.set()
    assert await asyncio.gather(first, *others) == ["A first", *(f"A {i}" for i in range(5))]
    assert redis.batches == [["first"], list("01234"), list("234"), ["4"]]


async def test_an_error_of_one_call_is_its_own(batches: ScriptBatches, redis: FakeRedis) -> None:
    first = await held(batches, redis)
    good, bad = ask(batches, "good"), ask(batches, "bad")
    redis.gate.set()
    assert [await first, await good] == ["A first", "A good"]
    with pytest.raises(StoreUnavailable) as caught:
        await bad
    assert type(caught.value.__cause__) is ResponseError
    assert len(redis.batches) == 2


async def test_when_redis_is_away_all_who_wait_are_told_at_once(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    others = [ask(batches, str(i)) for i in range(40)]
    await asyncio.sleep(0)
    redis.fails = RedisConnectionError("gone")
    redis.gate.set()
    for call in (first, *others):
        with pytest.raises(StoreUnavailable):
            await call
    assert len(redis.batches) == 1
    redis.fails = None
    assert await ask(batches, "again") == "A again"


async def test_a_redis_that_stays_away_is_spared_but_for_one_at_a_time(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    redis.fails = RedisConnectionError("gone")
    refused = await asyncio.gather(
        *[ask(batches, str(i)) for i in range(3)],
        *[ask(batches, "b", "b"), ask(batches, "again")],
        return_exceptions=True,
    )
    while len(redis.batches) < 3:
        refused += await asyncio.gather(ask(batches, "more"), return_exceptions=True)
    trips = len(redis.batches)
    many = [ask(batches, f"{i}", name) for name in "ab" for i in range(500)]
    refused += await asyncio.gather(*many, return_exceptions=True)
    assert {type(each) for each in refused} == {StoreUnavailable}
    assert len(redis.batches) <= trips + 1, "a probe, if the machine was slow"


async def test_one_who_asks_a_redis_that_is_back_opens_the_way_for_all(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    redis.fails = RedisConnectionError("gone")
    while len(redis.batches) < 3:
        await asyncio.gather(ask(batches, "x"), return_exceptions=True)
    redis.fails = None

    async def answers() -> bool:
        [answer] = await asyncio.gather(ask(batches, "x"), return_exceptions=True)
        return bool(answer == "A x")

    await wait_until(answers)
    assert await asyncio.gather(*(ask(batches, f"{i}", "b") for i in range(50)))


async def test_the_partitions_of_a_redis_that_is_away_are_spared_each_by_itself(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    redis.fails = RedisConnectionError("gone")
    while len(redis.batches) < 3:
        await asyncio.gather(ask(batches, "x"), return_exceptions=True)
    redis.fails = None
    assert await ask(batches, "x", partition=1) == "A x"


async def test_a_full_redis_is_told_to_those_of_that_batch_alone(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    other = ask(batches, "other")
    await asyncio.sleep(0)
    redis.fails = OutOfMemoryError("full")
    redis.gate.set()
    for call in (first, other):
        with pytest.raises(CapacityExhausted):
            await call
    assert len(redis.batches) == 2


async def test_a_call_whose_caller_has_gone_is_not_sent(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    gone, stays = ask(batches, "gone"), ask(batches, "stays")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    redis.gate.set()
    assert await first
    assert await stays
    assert redis.batches == [["first"], ["stays"]]


async def test_closing_ends_what_is_under_way(batches: ScriptBatches, redis: FakeRedis) -> None:
    first = await held(batches, redis)
    other = ask(batches, "other")
    await asyncio.sleep(0)
    await batches.aclose()
    await asyncio.wait({first, other})
    assert first.cancelled()
    assert other.cancelled()


async def test_those_in_a_queue_for_a_connection_do_not_find_out_one_by_one(
    redis: FakeRedis,
) -> None:
    sources = {name: name for name in "abcd"}
    batches = ScriptBatches(redis, sources, budget=5.0, connections=1, layout=StoreLayout(redis, 1))
    first = await held(batches, redis)
    others = [ask(batches, "other", script) for script in "bcd"]
    await asyncio.sleep(0)
    redis.fails = RedisConnectionError("refused")
    redis.gate.set()
    for call in (first, *others):
        with pytest.raises(StoreUnavailable):
            await call
    assert redis.batches == [["first"]]
    await batches.aclose()


def test_a_redis_that_is_full_is_there() -> None:
    async def full() -> None:
        redis = FakeRedis()
        layout = StoreLayout(redis, 1)
        batches = ScriptBatches(redis, {"a": "A"}, budget=5.0, connections=1, layout=layout)
        redis.fails = RedisConnectionError("refused")
        for _ in range(4):
            with pytest.raises(StoreUnavailable):
                await ask(batches, "lost")
        assert batches.unreachable == 1
        await asyncio.sleep(1.0)
        redis.fails = OutOfMemoryError("full")
        for _ in range(2):
            with pytest.raises(CapacityExhausted):
                await ask(batches, "full")
        assert batches.unreachable == 0
        await batches.aclose()

    run_virtually(full())


async def test_a_caller_that_goes_during_a_trip_takes_no_answer_from_others(
    batches: ScriptBatches, redis: FakeRedis
) -> None:
    first = await held(batches, redis)
    gone, stays = ask(batches, "gone"), ask(batches, "stays")
    redis.gate.set()
    await first
    redis.gate.clear()
    await wait_until(lambda: len(redis.batches) == 2)
    gone.cancel()
    redis.gate.set()
    assert await stays == "A stays"
    assert await ask(batches, "later") == "A later"
