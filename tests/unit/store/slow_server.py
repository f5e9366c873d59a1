"""A Redis client whose server answers as late, and as wrongly, as a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from headstart_service.store.batches import ScriptBatches
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.layout import StoreLayout
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.store_rules import StoreRules
from tests.support.virtual_time import loop_time

RULES = StoreRules(partitions=1, max_records=1000, failure_ttl=60.0, max_memos=10)
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


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
        self.asked.append(loop_time())
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
