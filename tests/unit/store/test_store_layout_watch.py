"""How a process watches the layout of its store: by a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from headstart_service.domain.errors import LayoutMismatch, StoreUnavailable
from headstart_service.store.layout import Layout, LayoutWatch, StoreLayout
from headstart_service.store.repartition import repartition
from tests.support.virtual_time import loop_time, run_virtually
from tests.unit.store.slow_server import Server


def test_a_process_that_differs_logs_it_once_and_calls_back_at_each_change(
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
        "the store's layout is this process's: format=4 partitions=1",
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
        assert loop_time() < 2.0

    run_virtually(main())


def test_a_process_that_differed_leaves_an_emptied_store_to_others_for_two_seconds() -> None:
    created: list[int] = []

    class Empty(Server):
        def register_script(self, script: Any) -> Any:
            async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
                created.append(args[1])
                return [b"format=4 partitions=1" if args[1] else b"", 0]

            return run

    async def main() -> None:
        await asyncio.sleep(100)
        layout = StoreLayout(Empty(), 1)
        layout.mismatch("format=4 partitions=2")
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
            return b"format=4 partitions=1"

    async def main() -> None:
        server = Leaving()
        server.fails = RedisConnectionError("gone")
        with pytest.raises(StoreUnavailable):
            await repartition(server, 2, lambda _: None)
        assert 60 <= loop_time() <= 60.5
        assert 250 <= len(server.asked) <= 302, "five times a second"

    run_virtually(main())
