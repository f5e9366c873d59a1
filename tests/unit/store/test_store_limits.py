"""How long the store waits, how often it tries, and what it counts: by a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from headstart_service.domain.errors import CapacityExhausted, LayoutMismatch, StoreUnavailable
from headstart_service.store import refusals
from headstart_service.store.batches import ScriptBatches, answered
from headstart_service.store.connect import API, BLOCKING, LARGE, WORKER, open_client
from headstart_service.store.events import subscription
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.large_reads import LargeReads
from headstart_service.store.layout import Layout, LayoutWatch, StoreLayout
from headstart_service.store.memos import RedisMemos
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.repartition import repartition
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.store_rules import StoreRules
from tests.support.virtual_time import Clock, run_virtually

RULES = StoreRules(partitions=1, max_records=1000, failure_ttl=60.0, max_memos=10)
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


def now() -> float:
    return asyncio.get_running_loop().time()


class Counted(Unwatched):
    """Notes what the store reports, in order."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, int, str]] = []
        self.trips: list[tuple[str, int]] = []
        self.looks: list[str] = []

    def failed(self, command: str, calls: int, error: str) -> None:
        self.failures.append((command, calls, error))

    def trip(self, command: str, calls: int, seconds: float) -> None:
        assert 0 <= seconds < 5
        self.trips.append((command, calls))

    def looked(self, result: str) -> None:
        self.looks.append(result)


class Server(Redis):
    """A client whose server answers each script call with its first argument, after `takes` s."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = 0.0
        self.fails: Exception | None = None
        self.batches: list[list[Any]] = []
        self.asked: list[float] = []
        self.seen_by: list[str] = []
        self.arguments: list[Sequence[Any]] = []

    async def answer(self) -> None:
        self.asked.append(now())
        await asyncio.sleep(self.takes)
        if self.fails:
            raise self.fails

    def register_script(self, script: Any) -> Any:
        async def run(keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
            self.seen_by.append(WHO.get())
            calls, at = [], 5
            if len(args) > 5:
                for _ in range(args[4]):
                    calls.append(args[at + 1])
                    at += 1 + args[at]
            self.batches.append(calls)
            self.arguments.append(args[6:])
            await self.answer()
            return [ResponseError("no") if call == "bad" else call for call in calls]

        return run

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await self.answer()
        return None


def batches_of(server: Server, observer: Counted, budget: float = 2.0) -> ScriptBatches:
    return ScriptBatches(
        server,
        {"a": "A", "b": "B"},
        budget=budget,
        connections=2,
        layout=StoreLayout(server, 1),
        observer=observer,
    )


def ask(batches: ScriptBatches, text: str, name: str = "a") -> asyncio.Task[Any]:
    call = batches.call(name, PartitionKeys(0), f"run:{text[:10]}", [text])
    return asyncio.ensure_future(call)


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
        server.fails = ResponseError("LAYOUT format=2 partitions=3")
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
        began = now()

        async def later(turns: int) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await ask(batches, f"{turns}")

        await asyncio.gather(*(later(turns) for turns in (0, 3, 10, 30)))
        assert server.batches == [["first"], ["0", "3", "10", "30"]]
        await asyncio.gather(*(later(turns) for turns in range(25)))
        assert [len(batch) for batch in server.batches[2:]] == [16, 9], "enough is enough"
        assert now() == began
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


# The job queue.


class Jobs(Server):
    """A server whose commands for jobs do as a test says; of others, none answers."""

    def __init__(self, **commands: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        super().__init__()
        self.given: dict[str, dict[str, Any]] = {}
        for name in ("xreadgroup", "xautoclaim", "hmget"):
            setattr(self, name, self._noted(name, commands.get(name, self._hang)))

    def _noted(self, name: str, do: Callable[..., Any]) -> Any:
        async def command(*args: Any, **options: Any) -> Any:
            self.given[name] = options
            self.asked.append(now())
            return await do(*args, **options)

        return command

    async def _hang(self, *args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()


def queue_of(server: Server, observer: Counted, budget: float = 30.0) -> RedisJobQueue:
    return RedisJobQueue(server, server, RULES, lease=15.0, budget=budget, observer=observer)


@pytest.mark.parametrize(("wait", "block"), [(0.0, None), (2.5, 2500)])
def test_a_wait_for_jobs_ends_five_seconds_after_its_time(wait: float, block: int | None) -> None:
    async def main() -> None:
        server, observer = Jobs(), Counted()
        with pytest.raises(StoreUnavailable):
            await queue_of(server, observer).next_jobs(0, "w1", 7, wait)
        assert now() == pytest.approx(wait + 5)
        assert server.given["xreadgroup"] == {"count": 7, "block": block}
        assert observer.failures == [("xreadgroup", 1, "timeout")]

    run_virtually(main())


def test_a_look_for_lost_jobs_ends_with_the_budget_and_is_counted() -> None:
    async def found(*_: Any, **options: Any) -> Any:
        return b"0-0", [], []

    async def main() -> None:
        server, observer = Jobs(), Counted()
        with pytest.raises(StoreUnavailable):
            await queue_of(server, observer, budget=3.0).lost_jobs(0, "w1", 7)
        assert now() == pytest.approx(3.0)
        assert observer.failures == [("xautoclaim", 1, "timeout")]
        server, observer = Jobs(xautoclaim=found), Counted()
        assert await queue_of(server, observer).lost_jobs(0, "w1", 7) == []
        assert (observer.trips, server.given["xautoclaim"]) == ([("xautoclaim", 1)], {"count": 7})

    run_virtually(main())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemoryError("full"), "full"),
        (ResponseError("LOADING"), "refused"),
        (RedisConnectionError("gone"), "lost"),
    ],
)
def test_a_command_for_jobs_that_fails_is_counted_by_its_kind(error: Exception, kind: str) -> None:
    async def fails(*_: Any, **options: Any) -> Any:
        raise error

    async def main() -> None:
        server, observer = Jobs(xreadgroup=fails, xautoclaim=fails), Counted()
        queue = queue_of(server, observer)
        for call in (queue.next_jobs(0, "w1", 7, 1.0), queue.lost_jobs(0, "w1", 7)):
            with pytest.raises(StoreUnavailable):
                await call
        assert observer.failures == [("xreadgroup", 1, kind), ("xautoclaim", 1, kind)]

    run_virtually(main())


def test_which_runs_lost_jobs_are_for_is_asked_again_within_the_budget() -> None:
    async def found(*_: Any, **options: Any) -> Any:
        return b"0-0", [(b"1-1", {b"member": b"games:k", b"run": b"r"})], []

    async def main() -> None:
        server, observer = Jobs(xautoclaim=found), Counted()
        with pytest.raises(StoreUnavailable):
            await queue_of(server, observer, budget=9.0).lost_jobs(0, "w1", 7)
        # Each try has two and a half seconds, and a short pause before the next.
        asked = [round(at, 2) for at in server.asked[1:]]
        assert asked == [0, 2.52, 5.06, 7.64]
        assert observer.failures == [("hmget", 1, "timeout")] * 4

    run_virtually(main())


def test_a_script_that_hangs_gets_two_and_a_half_seconds_a_try() -> None:
    async def main() -> None:
        server, observer = Jobs(), Counted()
        server.takes = 1000.0
        queue = queue_of(server, observer, budget=7.0)
        with pytest.raises(StoreUnavailable):
            await queue.sweep()
        tries = [later - sooner for sooner, later in zip(server.asked, server.asked[1:])]  # noqa: B905
        assert all(2.5 < each < 2.7 for each in tries)
        assert len(server.asked) == 3
        await queue.aclose()

    run_virtually(main())


def test_consumers_are_forgotten_after_an_hour_of_silence() -> None:
    async def main() -> None:
        server = Server()
        queue = queue_of(server, Counted())
        store = RedisStore(server, RULES, budget=1.0, connections=1)
        with suppress(TypeError):  # such a server answers nothing that is of use
            await queue.prepare_queue()
        await store.prepare()
        assert [idle for _, idle in server.arguments] == [3_600_000] * 2
        await queue.aclose()
        await store.aclose()

    run_virtually(main())


# Announcements.


class Channel:
    """A subscription that brings these messages, each after its pause; then it is silent."""

    def __init__(self, *messages: tuple[float, dict[str, Any]]) -> None:
        self.messages = list(messages)
        self.due = 0.0
        self.pings: list[float] = []
        self.answers_pings = 0
        self.closed = False

    def pubsub(self) -> Channel:
        return self

    async def subscribe(self, *channels: str) -> None:
        for _ in channels:
            self.messages.insert(0, (0.0, {"type": "subscribe"}))

    async def get_message(self, timeout: float) -> Any:  # noqa: ASYNC109  # redis-py's
        if not self.messages:
            await asyncio.sleep(timeout)
            return None
        pause, message = self.messages[0]
        self.due = self.due or now() + pause
        left = self.due - now()
        if left > timeout:
            await asyncio.sleep(timeout)
            return None
        await asyncio.sleep(left)
        self.messages.pop(0)
        self.due = 0.0
        return message

    async def ping(self) -> None:
        self.pings.append(now())
        if self.answers_pings:
            self.answers_pings -= 1
            self.messages.insert(0, (0.1, {"type": "pong"}))

    async def aclose(self) -> None:
        self.closed = True


def test_a_silent_subscription_is_asked_after_five_seconds_and_lost_after_as_many_more() -> None:
    async def main() -> None:
        channel = Channel((3.0, {"type": "message", "data": b"ended r1 - games:k"}))
        channel.answers_pings = 2
        with pytest.raises(StoreUnavailable, match="silence"):
            async with subscription(channel, ["a", "b"]) as announcements:  # type: ignore[arg-type]
                async for announcement in announcements:
                    assert (announcement.kind, now()) == ("ended", 3.0)
        assert channel.pings == pytest.approx([8.0, 13.1, 18.2])
        assert now() == pytest.approx(23.2)
        assert channel.closed

    run_virtually(main())


def test_a_subscription_that_is_not_confirmed_is_none() -> None:
    async def main() -> None:
        channel = Channel()

        async def nothing(*_: str) -> None:
            pass

        channel.subscribe = nothing  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="no answer"):
            async with subscription(channel, ["a"]):  # type: ignore[arg-type]
                raise AssertionError("it gave announcements")
        assert now() == pytest.approx(1.0)
        assert channel.closed

    run_virtually(main())


# Memos.


def test_a_step_waits_a_quarter_of_a_second_for_its_memo_and_no_longer() -> None:
    async def main() -> None:
        server, observer = Server(), Counted()
        server.takes = 60.0
        memos = RedisMemos(server, RULES, ttl=60.0, observer=observer)
        assert await memos.memo_get("games", "d") is None
        assert now() == pytest.approx(0.25 + 0.02, abs=0.001)
        await memos.memo_put("games", "d", b"result")
        assert now() == pytest.approx(2 * 0.27, abs=0.001)
        assert observer.looks == ["away"]
        await memos.aclose()

    run_virtually(main())


# The layout.


def test_a_process_that_differs_says_so_once_and_calls_back_at_each_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str] = []
    problems = iter(
        [None, "three", "three", "away", "three", "four", None, None, "gone", None]
    )  # gone: not live for a while

    class Compared:
        own = Layout(1)
        withdrawn: list[str] = []  # noqa: RUF012

        def __init__(self) -> None:
            self.problem: str | None = None

        async def agree_all(self, process: str, ttl: float) -> bool:
            assert (process, ttl) == ("api a", 10.0)
            if self.problem in ("three", "four"):
                raise LayoutMismatch(self.problem)
            if self.problem == "away":
                raise StoreUnavailable("away")
            return self.problem is None

        async def withdraw(self, process: str) -> None:
            self.withdrawn.append(process)

    layout = Compared()

    async def adopt() -> None:
        seen.append("adopt")

    async def main() -> None:
        watch = LayoutWatch(
            layout,  # type: ignore[arg-type]
            "api a",
            every=1.0,
            adopt=adopt,
            differs=lambda: seen.append("differs"),
            agrees=lambda: seen.append("agrees"),
        )
        told = []
        layout.problem = next(problems)
        async with watch.running():
            for problem in problems:
                await asyncio.sleep(0.5)
                told.append((watch.problem, tuple(seen)))
                seen.clear()
                layout.problem = problem
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.5)
        assert told == [
            ("", ()),
            ("three", ("differs", "adopt")),
            ("three", ("adopt",)),
            ("three", ()),
            ("three", ("adopt",)),
            ("four", ("differs", "adopt")),
            ("", ("agrees",)),
            ("", ()),
            ("", ("differs", "agrees")),
        ]
        assert layout.withdrawn == ["api a"]

    run_virtually(main())
    assert [line for line in caplog.messages if "layout" in line or "not ready" in line] == [
        "not ready: three",
        "not ready: four",
        "the store's layout is this process's: format=2 partitions=1",
    ]


def test_a_watch_ends_though_a_cancellation_is_swallowed() -> None:
    """As Python 3.11's wait_for may."""

    class Swallowing:
        own = Layout(1)
        swallows = 2

        async def agree_all(self, process: str, ttl: float) -> bool:
            while self.swallows:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1000)
                self.swallows -= 1
            return True

        async def withdraw(self, process: str) -> None:
            raise StoreUnavailable("away")

    async def main() -> None:
        async def adopt() -> None:
            raise AssertionError("there is nothing to adopt")

        watch = LayoutWatch(
            Swallowing(),  # type: ignore[arg-type]
            "api a",
            every=1.0,
            adopt=adopt,
            differs=lambda: None,
        )
        async with watch.running():
            await asyncio.sleep(0.1)
        assert "layout" not in {task.get_name() for task in asyncio.all_tasks()}
        assert now() < 2.0

    run_virtually(main())


def test_a_process_that_differed_leaves_an_emptied_store_to_others_for_two_seconds() -> None:
    created: list[int] = []

    class Empty(Server):
        def register_script(self, script: Any) -> Any:
            async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
                created.append(args[1])
                return [b"format=2 partitions=1" if args[1] else b"", 0]

            return run

    async def main() -> None:
        await asyncio.sleep(100)
        layout = StoreLayout(Empty(), 1)
        layout.mismatch("format=2 partitions=2")
        for _ in range(5):
            try:
                await layout.agree_all("api a", 10)
            except LayoutMismatch as error:
                assert "emptied" in str(error)  # noqa: PT017
            await asyncio.sleep(0.6)
        assert created == [0, 0, 0, 0, 1]
        await layout.agree_all("api a", 10)
        assert created[-1] == 1, "from then on it is one of those that have served"

    run_virtually(main())


def test_a_move_asks_a_store_that_is_away_for_a_minute() -> None:

    class Leaving(Server):
        async def get(self, key: str) -> Any:
            return b"format=2 partitions=1"

    async def main() -> None:
        server = Leaving()
        server.fails = RedisConnectionError("gone")
        with pytest.raises(StoreUnavailable):
            await repartition(server, 2, lambda _: None)
        assert 60 <= now() <= 60.5
        assert 250 <= len(server.asked) <= 302, "five times a second"

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
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (connect, answer)
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
            tried.append(now())
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
