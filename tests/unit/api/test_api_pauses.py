"""How often an API process asks a store that is away: by a virtual clock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from headstart_service.api.deadline import Deadline
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import POLL, Waiting
from headstart_service.pipeline.registry import Registry
from tests.support.virtual_time import run_virtually
from tests.unit.api.conftest import KEY, PIPELINE, AnnouncedRun, Wire

MINUTE = 60.0


@asynccontextmanager
async def hearing(wire: Wire, store: AnnouncedRun) -> Any:
    cache = NearCache(1_000_000)
    waiting = Waiting(store, [wire.subscribe], cache)  # type: ignore[arg-type]
    running = asyncio.create_task(waiting.run())
    await asyncio.sleep(0.1)
    try:
        yield ResultReader(waiting, cache, Registry([PIPELINE]))
    finally:
        running.cancel()
        await asyncio.wait({running})


def test_a_store_that_refuses_subscriptions_is_asked_ever_more_seldom() -> None:
    asked: list[float] = []

    class Refusing(Wire):
        @asynccontextmanager
        async def subscribe(self) -> Any:
            asked.append(asyncio.get_running_loop().time())
            async with super().subscribe() as announcements:
                yield announcements

    async def refused() -> None:
        wire = Refusing()
        wire.refusing = True
        async with hearing(wire, AnnouncedRun(wire)):
            await asyncio.sleep(MINUTE)
            wire.refusing = False
            await asyncio.sleep(2.0)
            wire.refusing = True
            again = len(asked)
            wire.cut()
            await asyncio.sleep(0.15)
            assert len(asked) == again + 1, "the first retry comes soon after every outage"

    run_virtually(refused())
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(asked)]
    assert pauses[:5] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert set(pauses[5:60]) == {1.0}


def test_a_store_that_is_away_is_read_ten_times_a_second_at_most_for_all_who_wait() -> None:
    async def refused() -> int:
        wire = Wire()
        store = AnnouncedRun(wire)
        async with hearing(wire, store) as reader:
            waiters = [
                asyncio.create_task(reader.get(KEY, (), Deadline.of_call(MINUTE), 0))
                for _ in range(5)
            ]
            await asyncio.sleep(1.0)
            store.away, before = True, store.reads
            wire.say("ended")
            await asyncio.sleep(MINUTE / 2)
            reads = store.reads - before
            store.away = False
            store.end("one", "two", "three")
            await asyncio.gather(*waiters)
            return reads

    assert MINUTE <= run_virtually(refused()) <= MINUTE / 2 * 10


def test_waiters_read_every_ten_seconds_should_an_announcement_have_been_lost() -> None:
    async def silence() -> int:
        wire = Wire()
        store = AnnouncedRun(wire)
        async with hearing(wire, store) as reader:
            waiter = asyncio.create_task(reader.get(KEY, (), Deadline.of_call(10 * MINUTE), 0))
            await asyncio.sleep(MINUTE)
            waiter.cancel()
            await asyncio.wait({waiter})
            return store.reads

    assert MINUTE / POLL - 1 <= run_virtually(silence()) <= MINUTE / POLL + 2
