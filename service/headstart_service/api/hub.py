"""One subscription for a whole process, shared by everybody in it who waits for a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

from ..domain import Announcement, RunKey
from ..errors import StoreUnavailable
from .near_cache import NearCache

log = logging.getLogger(__name__)

Subscribe = Callable[[], AbstractAsyncContextManager[AsyncIterator[Announcement]]]

POLL = 10.0
"""Seconds after which waiters look for themselves, should an announcement have been lost."""
_POLL_SHARES = 20
"""In how many parts waiters do so: all at once, thousands of reads would delay every other."""
_FIRST_RETRY = 0.1
_LAST_RETRY = 1.0
_OUTDATING = frozenset({"started", "cancelled", "dropped"})


class Listener:
    """One waiter's ear. Hears only what can end its wait, unless it wants to hear everything."""

    def __init__(self, topic: Topic, *, everything: bool) -> None:
        self.topic = topic
        self._everything = everything
        self._expected: set[str] = set()
        self._woken = asyncio.Event()

    def expect(self, steps: AbstractSet[str], since: int) -> None:
        """Wake up when all of these steps have ended; with none, when the run has.

        `since` is the topic's generation when the caller began its last look: if something was
        announced after that, look again at once.
        """
        self._expected = set(steps)
        if self.topic.generation == since:
            self._woken.clear()
        else:
            self._woken.set()

    def hear(self, announcement: Announcement) -> None:
        """Wake up if this is what the waiter waits for."""
        if not self._everything:
            if announcement.kind in ("claimed", "released"):
                return
            if announcement.kind == "step":
                if not self._expected:
                    return
                self._expected.difference_update(announcement.steps)
                if self._expected:
                    return
        self._woken.set()

    def wake(self) -> None:
        """Wake up to look, whatever happened."""
        self._woken.set()

    async def wait(self, seconds: float | None) -> bool:
        """Sleep until woken. False after so many seconds without; None is no limit."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True


@dataclass(slots=True, eq=False)
class Topic:
    """A run that somebody waits for. `generation` grows whenever its state may have changed."""

    key: RunKey
    generation: int = 0
    listeners: set[Listener] = field(default_factory=set)

    def wake(self) -> None:
        """Make everyone look, whatever happened."""
        self.generation += 1
        for listener in self.listeners:
            listener.wake()


class Hub:
    """Hears every announcement; wakes listeners and drops outdated answers from the near-cache."""

    def __init__(self, subscribe: Subscribe, cache: NearCache) -> None:
        self._subscribe = subscribe
        self._cache = cache
        self._topics: dict[RunKey, Topic] = {}
        self.hearing = False
        """Whether announcements arrive now."""
        self.closing = False
        """Whether this process is about to end, so that nobody shall wait any more."""

    @contextmanager
    def listen(self, key: RunKey, *, everything: bool = False) -> Iterator[Listener]:
        """Hear what is announced about `key` from now on."""
        topic = self._topics.setdefault(key, Topic(key))
        listener = Listener(topic, everything=everything)
        topic.listeners.add(listener)
        try:
            yield listener
        finally:
            topic.listeners.discard(listener)
            if not topic.listeners and self._topics.get(key) is topic:
                del self._topics[key]

    @property
    def listeners(self) -> int:
        """How many wait now."""
        return sum(len(topic.listeners) for topic in self._topics.values())

    def release(self) -> None:
        """Let nobody wait any more: whoever does answers with what exists now."""
        self.closing = True
        for topic in self._topics.values():
            topic.wake()

    async def run(self) -> None:
        """Listen for ever. Whoever starts this task cancels it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(), name="announcements")
            group.create_task(self._poll(), name="poll")

    async def _hear(self) -> None:
        retry = _FIRST_RETRY
        while True:
            try:
                async with self._subscribe() as announcements:
                    self._cache.open()
                    self.hearing = True
                    # What was announced before is lost.
                    for topic in self._topics.values():
                        topic.wake()
                    retry = _FIRST_RETRY
                    async for announcement in announcements:
                        self._dispatch(announcement)
            except StoreUnavailable as error:
                log.warning("announcements: %s", error)
            finally:
                self.hearing = False
                self._cache.close()
            await asyncio.sleep(retry)
            retry = min(retry * 2, _LAST_RETRY)

    async def _poll(self) -> None:
        while True:
            topics = list(self._topics.values())
            for first in range(_POLL_SHARES):
                await asyncio.sleep(POLL / _POLL_SHARES)
                for topic in topics[first::_POLL_SHARES]:
                    topic.wake()

    def _dispatch(self, announcement: Announcement) -> None:
        if announcement.kind in _OUTDATING:
            self._cache.drop(announcement.key)
        topic = self._topics.get(announcement.key)
        if topic is not None:
            topic.generation += 1
            for listener in topic.listeners:
                listener.hear(announcement)
