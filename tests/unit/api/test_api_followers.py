"""Followers of partial results: whatever is announced, late, twice or never, no byte is wrong."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import Any

import pytest

from headstart_service.api.results.followers import Follower
from headstart_service.api.results.growing import growing
from headstart_service.domain import (
    Announcement,
    Cursor,
    Cursors,
    EventKind,
    PartialForm,
    PartialPiece,
    Partials,
    RunKey,
)
from headstart_service.domain.errors import RunNotFound, StoreUnavailable
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until

KEY = RunKey("default", "game-1")


class GrowingStore(FakeRunStore):
    """A store of one step's text, which grows and begins anew."""

    def __init__(self) -> None:
        super().__init__()
        self.generation, self.text = 1, b""
        self.reads = 0
        self.form = PartialForm.TEXT

    def say(self, data: bytes, *, carried: bool = True) -> Announcement:
        """Let the step give something; return the announcement of it."""
        before, self.text = len(self.text), self.text + data
        return self._announcement(before, data if carried else b"")

    def restart(self) -> Announcement:
        self.generation, self.text = self.generation + 1, b""
        return self._announcement(0, b"")

    def _announcement(self, offset: int, data: bytes) -> Announcement:
        length = len(self.text)
        piece = PartialPiece("draft", self.form, self.generation, offset, data, length)
        return Announcement(EventKind.PARTIAL, KEY, self.run, piece=piece)

    async def read_partials(
        self, key: RunKey, cursors: Cursors, *, follow: bool, tail: int = 0
    ) -> Partials:
        self.reads += 1
        await self._called("read_partials", key)
        generation, offset = cursors.get("draft", Cursor())
        offset = offset if generation == self.generation else 0
        found = self.text[offset:]
        await asyncio.sleep(0)
        self.meanwhile()
        piece = PartialPiece(
            "draft", self.form, self.generation, offset, found, offset + len(found)
        )
        news = found or generation != self.generation
        return Partials(self.run, [piece] if news else [])


class Watcher:
    """What a watcher makes of the parts that it gets."""

    def __init__(self) -> None:
        self.generation, self.text = 0, b""

    def take(self, parts: list[Any]) -> None:
        for part in parts:
            assert part.restarted == (self.generation not in (0, part.generation))
            if part.restarted or not self.generation:
                self.generation, self.text = part.generation, b""
            assert part.offset == len(self.text), "nothing is repeated or missed"
            self.text += part.text.encode()
            assert part.next_offset == len(self.text)


@pytest.mark.parametrize("seed", range(30))
async def test_what_a_watcher_has_is_what_the_step_gave_however_it_is_announced(seed: int) -> None:
    chance = random.Random(seed)
    store, watcher = GrowingStore(), Watcher()
    follower = Follower(store, KEY, {}, ())
    late: list[Announcement] = []
    for _ in range(200):
        said = store.restart() if chance.random() < 0.03 else store.say(b"w" * chance.randint(0, 9))
        if chance.random() < 0.1:
            late.append(said)
        else:
            follower.receive(said)
        if late and chance.random() < 0.05:
            follower.receive(late.pop(0))
        if chance.random() < 0.02:
            follower.doubt()
        if chance.random() < 0.3:
            watcher.take(await follower.take())
    follower.doubt()
    watcher.take(await follower.take())
    assert (watcher.generation, watcher.text) == (store.generation, store.text)


async def test_a_read_is_needed_only_where_announcements_leave_a_doubt() -> None:
    store, watcher = GrowingStore(), Watcher()
    follower = Follower(store, KEY, {}, ())
    watcher.take(await follower.take())
    for word in (b"one ", b"two ", "thrée ".encode()):
        follower.receive(store.say(word))
    watcher.take(await follower.take())
    assert (watcher.text.decode(), store.reads) == ("one two thrée ", 1)
    follower.receive(store.say(b"large", carried=False))
    watcher.take(await follower.take())
    assert store.reads == 2
    store.meanwhile = lambda: follower.receive(store.say(b"!")) if store.reads == 3 else None
    follower.doubt()
    watcher.take(await follower.take())
    assert (watcher.text, store.reads) == (store.text, 3), "what came during a read is no doubt"


async def test_a_watcher_that_takes_nothing_costs_no_memory() -> None:
    store, watcher = GrowingStore(), Watcher()
    follower = Follower(store, KEY, {}, ())
    await follower.take()
    for _ in range(100):
        follower.receive(store.say(b"x" * 10_000))
    watcher.take(await follower.take())
    assert (len(watcher.text), store.reads) == (1_000_000, 2)


async def test_a_resumed_watch_goes_on_behind_its_cursor() -> None:
    store = GrowingStore()
    store.say("wörds and more".encode())
    follower = Follower(store, KEY, {"draft": Cursor(1, 7)}, ())
    [part] = await follower.take()
    assert (part.text, part.offset, part.restarted) == ("and more", 7, False)
    follower = Follower(store, KEY, {"draft": Cursor(9, 7)}, ())
    [part] = await follower.take()
    assert (part.text, part.offset, part.restarted) == ("wörds and more", 0, True)
    follower = Follower(store, KEY, {}, ["other"])
    assert await follower.take() == []
    store.form, store.text = PartialForm.LINES, '{"a":"\u2028"}\n2\n'.encode()
    [part] = await Follower(store, KEY, {}, ()).take()
    assert list(part.json_lines) == ['{"a":"\u2028"}', "2"]


class OneAnswer:
    """An answer of the store's run."""

    run = "run-1"


async def test_an_outage_delays_a_watch_that_has_begun_and_ends_one_that_has_not() -> None:
    go = asyncio.Event()

    async def answers() -> Any:
        yield OneAnswer()
        await go.wait()
        yield OneAnswer()

    store = GrowingStore()
    store.away = True
    with pytest.raises(StoreUnavailable):
        await anext(growing(answers(), Follower(store, KEY, {}, ())))
    store.away = False
    follower = Follower(store, KEY, {}, ())
    async with asyncio.timeout(10), aclosing(growing(answers(), follower)) as watch:
        answer, _ = await anext(watch)
        assert answer is not None
        store.away = True
        store.say(b"meanwhile")
        follower.doubt()
        following = asyncio.create_task(anext(watch))
        await wait_until(lambda: store.reads >= 4)
        store.away = False
        answer, [piece] = await following
        assert (answer, piece.text) == (None, "meanwhile")
        go.set()
        answer, pieces = await anext(watch)
        assert (answer is not None, pieces) == (True, [])
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_run_that_is_gone_has_nothing_to_follow() -> None:
    store = GrowingStore()
    store.fails["read_partials"] = RunNotFound("default", "game-1")
    assert await Follower(store, KEY, {}, ()).take() == []
