"""How long the store waits, how often it tries, and what it counts: by a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from headstart_service.domain.errors import CapacityExhausted, LayoutMismatch, StoreUnavailable
from headstart_service.store import refusals
from headstart_service.store.batches import answered
from headstart_service.store.connect import API, BLOCKING, LARGE, WORKER, open_client
from headstart_service.store.large_reads import LargeReads
from headstart_service.store.memos import RedisMemos
from tests.support.virtual_time import Clock, loop_time, run_virtually
from tests.unit.store.slow_server import RULES, WHO, Counted, Server, ask, batches_of

# Batches.


@pytest.mark.parametrize(
    ("takes", "size", "fails"),
    [
        (1.9, 10, False),
        (2.01, 10, False),  # it is here, and a busy loop sees it too late
        (2.05, 10, True),
        (3.9, 20_000_000, False),
        (4.1, 20_000_000, True),
    ],
)
def test_a_batch_is_waited_for_by_its_budget_and_its_size(
    takes: float, size: int, *, fails: bool
) -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.takes = takes
        batches = batches_of(server, observer)
        call = ask(batches, "x" * size)
        await asyncio.wait({call})
        assert (call.exception() is not None) is fails
        assert observer.failures == ([("a", 1, "timeout")] if fails else [])
        assert observer.trips == ([] if fails else [("a", 1)])
        await batches.aclose()

    run_virtually(main())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RedisConnectionError("gone"), "lost"),
        (OSError("gone"), "lost"),
        (RuntimeError("closed"), "lost"),
        (RedisTimeoutError("late"), "timeout"),
        (TimeoutError("late"), "timeout"),
        (ResponseError("LOADING"), "refused"),
        (AuthenticationError("WRONGPASS"), "refused"),
        (OutOfMemoryError("full"), "full"),
    ],
)
def test_each_call_of_a_batch_that_fails_is_counted_by_the_kind_of_its_error(
    error: Exception, kind: str
) -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.takes = 0.5
        batches = batches_of(server, observer)
        first = ask(batches, "first")
        await asyncio.sleep(0.1)
        others = [ask(batches, f"{i}") for i in range(35)]
        await first
        server.fails = error
        await asyncio.wait(others)
        failed = [type(call.exception()) for call in others]
        if kind == "full":
            # The server is there: what is behind them is sent.
            assert observer.failures == [("a", 32, kind), ("a", 3, kind)]
            assert set(failed) == {CapacityExhausted}
            full = others[0].exception()
            assert isinstance(full, CapacityExhausted)
            assert full.retry_after == 5.0
            assert batches.unreachable == 0
        else:
            assert observer.failures == [("a", 32, kind), ("a", 3, "skipped")]
            assert set(failed) == {StoreUnavailable}
        await batches.aclose()

    run_virtually(main())


def test_a_call_that_is_not_sent_is_counted_and_may_be_repeated_in_a_second() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.fails = RedisConnectionError("gone")
        batches = batches_of(server, observer)
        for _ in range(3):
            await asyncio.wait({ask(batches, "x")})
        observer.failures.clear()
        with pytest.raises(StoreUnavailable, match="ConnectionError, as others found") as caught:
            await ask(batches, "x", "b")
        assert caught.value.retry_after == 1.0
        assert observer.failures == [("b", 1, "skipped")]
        assert batches.unreachable == 1
        # A probe whose server does not answer is waited for, and nobody asks meanwhile.
        await asyncio.sleep(0.21)
        server.takes = 10.0
        probe = ask(batches, "x")
        await asyncio.sleep(1.9)
        sent = len(server.asked)
        await asyncio.wait({ask(batches, "x", "b")})
        assert len(server.asked) == sent
        await asyncio.wait({probe})
        await batches.aclose()

    run_virtually(main())


def test_an_error_of_one_call_counts_as_refused_and_is_no_outage() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        batches = batches_of(server, observer)
        for _ in range(4):
            with pytest.raises(StoreUnavailable):
                await ask(batches, "bad")
        assert observer.failures == [("a", 1, "refused")] * 4
        assert observer.trips == [("a", 1)] * 4
        assert batches.unreachable == 0
        await batches.aclose()

    run_virtually(main())


def test_a_server_of_another_layout_is_there() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.fails = RedisConnectionError("gone")
        batches = batches_of(server, observer)
        for _ in range(3):
            await asyncio.wait({ask(batches, "x")})
        assert batches.unreachable == 1
        await asyncio.sleep(0.3)
        server.fails = ResponseError("LAYOUT format=4 partitions=3")
        with pytest.raises(LayoutMismatch, match="3 partitions"):
            await ask(batches, "x")
        assert batches.unreachable == 0
        await batches.aclose()

    run_virtually(main())


def test_a_busy_process_gathers_calls_for_some_turns_of_its_loop_and_never_for_a_time() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        batches = batches_of(server, observer)
        await asyncio.sleep(1.0)
        await ask(batches, "first")  # nobody was busy: it goes at once
        began = loop_time()

        async def later(turns: int) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await ask(batches, f"{turns}")

        await asyncio.gather(*(later(turns) for turns in (0, 3, 10, 30)))
        assert server.batches == [["first"], ["0", "3", "10", "30"]]
        await asyncio.gather(*(later(turns) for turns in range(25)))
        assert [len(batch) for batch in server.batches[2:]] == [16, 9], "enough is enough"
        assert loop_time() == began
        await asyncio.sleep(0.01)
        await asyncio.gather(later(0), later(20))
        assert server.batches[-2:] == [["0"], ["20"]]
        await batches.aclose()

    run_virtually(main())


def test_a_batch_works_for_others_too_and_takes_nothing_of_its_first_caller_along() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        batches = batches_of(server, observer)
        WHO.set("a caller")
        await ask(batches, "x")
        assert server.seen_by == ["nobody"]
        await batches.aclose()

    run_virtually(main())


def test_a_large_read_is_counted_as_one_trip_or_as_one_failure() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        reads = LargeReads(server, budget=1.0, observer=observer)
        server.takes = 3.0
        await reads.read("record", 25_000_000)
        assert observer.trips == [("HGETALL", 1)]
        with pytest.raises(StoreUnavailable):
            await reads.read("record", 15_000_000)
        server.takes, server.fails = 0.0, RedisConnectionError("gone")
        with pytest.raises(StoreUnavailable):
            await reads.read("record", 1)
        assert observer.failures == [("HGETALL", 1, "timeout"), ("HGETALL", 1, "lost")]
        assert observer.trips == [("HGETALL", 1)]

    run_virtually(main())


def test_an_answer_leaves_nothing_behind_that_would_be_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        assert await answered(asyncio.sleep(0.5, "reply"), 1.0) == "reply"
        await asyncio.sleep(5.0)

    run_virtually(main())
    assert caplog.messages == []


# Memos.


def test_a_step_waits_a_quarter_of_a_second_for_its_memo_and_no_longer() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.takes = 60.0
        memos = RedisMemos(server, RULES, ttl=60.0, observer=observer)
        assert await memos.memo_get("games", "d") is None
        assert loop_time() == pytest.approx(0.25 + 0.02, abs=0.001)
        await memos.memo_put("games", "d", b"result")
        assert loop_time() == pytest.approx(2 * 0.27, abs=0.001)
        assert observer.looks == ["away"]
        await memos.aclose()

    run_virtually(main())


# Clients.


@pytest.mark.parametrize(
    ("patience", "connect", "answer", "retries", "connections"),
    [
        (API, 1.0, 1.0, 1, 3),
        (WORKER, 1.0, 2.0, 1, 16),
        (LARGE, 1.0, None, 0, 1),
        (BLOCKING, 1.0, None, 0, 1100),
    ],
)
@pytest.mark.parametrize(
    "url", ["redis://h:1/2", "unix:///tmp/x?db=2", "redis+sentinel://s:1,t:2/service/2"]
)
async def test_a_client_waits_and_tries_again_as_its_patience_says(
    url: str,
    patience: Any,
    connect: float,
    answer: float | None,
    retries: int,
    connections: int,
) -> None:
    client = open_client(url, patience)
    pool: Any = client.connection_pool  # type: ignore[union-attr]
    assert (pool.max_connections, pool.timeout) == (connections, answer)
    options = pool.connection_kwargs
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (connect, None)
    assert (options["db"], options["protocol"]) == (2, 2)
    assert options["retry"].get_retries() == retries
    if "sentinel" in url:
        for sentinel in pool.sentinel_manager.sentinels:
            asked = sentinel.connection_pool.connection_kwargs
            assert (asked["socket_timeout"], asked["retry"].get_retries()) == (1.0, 0)
    await client.aclose()


def test_a_client_pauses_for_half_a_second_at_most_between_its_tries() -> None:
    async def main() -> list[float]:
        tried: list[float] = []

        async def fails() -> None:
            tried.append(loop_time())
            raise RedisConnectionError("gone")

        async def noted(_: Exception) -> None: ...

        client: Any = open_client("redis://h:1/2", WORKER)
        retry = client.connection_pool.connection_kwargs["retry"]
        retry.update_retries(12)
        with pytest.raises(RedisConnectionError):
            await retry.call_with_retry(fails, noted)
        await client.aclose()
        return [after - before for before, after in itertools.pairwise(tried)]

    pauses = run_virtually(main())
    assert len(pauses) == 12
    assert pauses[0] <= 0.02
    assert 0.1 < max(pauses) <= 0.501


# Refusals.


def test_a_refusal_is_logged_again_after_ten_seconds_and_each_reason_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    refused = refusals.RefusalLog(clock)
    full, other = OutOfMemoryError("oom"), ResponseError("ERR other")
    logged = []
    for at, error in ((0, full), (9, full), (9, other), (10, full), (12, full), (18, other)):
        clock.now = at
        refused.report(error)
        logged.append(len(caplog.messages))
    assert logged == [1, 1, 2, 3, 3, 3]
    refused.report(RedisConnectionError("gone"))
    assert len(caplog.messages) == 3, "a server that is away is no refusal"
    assert refusals.reason_of(other) == "Redis refuses: other"
