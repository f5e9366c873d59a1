"""Records of megabytes: one at a time, and nobody's outage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headstart_service.domain.errors import StoreUnavailable
from headstart_service.store.large_reads import LargeReads
from headstart_service.store.store_observer import Unwatched
from tests.support.waiting import wait_until


class FakeClient:
    """Answers once `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def execute_command(self, _: str, record: str) -> dict[bytes, bytes]:
        self.asked.append(record)
        await self.gate.wait()
        return {b"about": record.encode()}


class Failures(Unwatched):
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def failed(self, command: str, calls: int, error: str) -> None:
        self.kinds.append(error)


def reads(client: Any, budget: float, observer: Any = None) -> LargeReads:
    return LargeReads(client, budget=budget, observer=observer or Unwatched())


async def test_one_record_is_read_at_a_time() -> None:
    client = FakeClient()
    large = reads(client, 30.0)
    both = [asyncio.create_task(large.read(name, 1)) for name in "ab"]
    await wait_until(lambda: client.asked == ["a"])
    client.gate.set()
    assert await asyncio.gather(*both) == [{b"about": b"a"}, {b"about": b"b"}]


async def test_the_larger_a_record_the_longer_it_is_waited_for() -> None:
    observer = Failures()
    client = FakeClient()
    large = reads(client, 0.01, observer)
    with pytest.raises(StoreUnavailable):
        await large.read("small", 0)
    assert observer.kinds == ["timeout"]
    waiting = asyncio.create_task(large.read("large", 600_000_000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)
    client.gate.set()
    assert await waiting
