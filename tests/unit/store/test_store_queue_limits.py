"""How long the job queue and a subscription wait, and what they count: by a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from headstart_service.domain.errors import StoreUnavailable
from headstart_service.store.events import subscription
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.redis_store import RedisStore
from tests.support.virtual_time import loop_time, run_virtually
from tests.unit.store.slow_server import RULES, Counted, Server

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
            self.asked.append(loop_time())
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
        assert loop_time() == pytest.approx(wait + 5)
        assert server.given["xreadgroup"] == {"count": 7, "block": block}
        assert observer.failures == [("xreadgroup", 1, "timeout")]

    run_virtually(main())


def test_a_request_for_lost_jobs_ends_with_the_budget_and_is_counted() -> None:
    async def found(*_: Any, **options: Any) -> Any:
        return b"0-0", [], []

    async def main() -> None:
        server, observer = Jobs(), Counted()
        with pytest.raises(StoreUnavailable):
            await queue_of(server, observer, budget=3.0).lost_jobs(0, "w1", 7)
        assert loop_time() == pytest.approx(3.0)
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
        self.shard_channels: dict[str, None] = {}

    def pubsub(self) -> Channel:
        return self

    async def ssubscribe(self, *channels: str) -> None:
        for channel in channels:
            self.shard_channels[channel] = None
            self.messages.insert(0, (0.0, {"type": "ssubscribe"}))

    async def get_message(self, timeout: float) -> Any:  # noqa: ASYNC109  # redis-py's
        if not self.messages:
            await asyncio.sleep(timeout)
            return None
        pause, message = self.messages[0]
        self.due = self.due or loop_time() + pause
        left = self.due - loop_time()
        if left > timeout:
            await asyncio.sleep(timeout)
            return None
        await asyncio.sleep(left)
        self.messages.pop(0)
        self.due = 0.0
        return message

    async def ping(self) -> None:
        self.pings.append(loop_time())
        if self.answers_pings:
            self.answers_pings -= 1
            self.messages.insert(0, (0.1, {"type": "pong"}))

    async def aclose(self) -> None:
        self.closed = True


def test_a_silent_subscription_is_asked_after_five_seconds_and_lost_after_as_many_more() -> None:
    async def main() -> None:
        channel = Channel((3.0, {"type": "smessage", "data": b"ended r1 - games:k"}))
        channel.answers_pings = 2
        with pytest.raises(StoreUnavailable, match="silence"):
            async with subscription(channel, ["a", "b"]) as announcements:  # type: ignore[arg-type]
                async for announcement in announcements:
                    assert (announcement.kind, loop_time()) == ("ended", 3.0)
        assert channel.pings == pytest.approx([8.0, 13.1, 18.2])
        assert loop_time() == pytest.approx(23.2)
        assert channel.closed

    run_virtually(main())


def test_a_subscription_that_is_not_confirmed_is_none() -> None:
    async def main() -> None:
        channel = Channel()
        channel_names = channel.shard_channels

        async def nothing(channel: str) -> None:
            channel_names[channel] = None

        channel.ssubscribe = nothing  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="no answer"):
            async with subscription(channel, ["a"]):  # type: ignore[arg-type]
                raise AssertionError("it gave announcements")
        assert loop_time() == pytest.approx(1.0)
        assert channel.closed

    run_virtually(main())
