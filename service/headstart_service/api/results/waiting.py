"""One subscription for a whole process, shared by everybody in it who waits for a run.

Who waits for the same run shares its looks, too: a look is one read, begun when something was
announced that may end a wait, and its answer ends all the waits that it satisfies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from contextvars import Context

from ...domain import (
    Announcement,
    EventKind,
    RunKey,
    Snapshot,
)
from ...domain.errors import RecordDamaged, StoreUnavailable
from ...domain.retry_after import Pace
from ..call_observer import CallObserver, CallObservers
from ..ports import RunStore
from .answer import Answer, answer_from
from .near_cache import NearCache
from .subscription import Topic, Waiter

log = logging.getLogger(__name__)

Watch = Callable[[Announcement], None]
Estimated = Callable[[Snapshot], Mapping[str, tuple[int, int]]]
Subscribe = Callable[[], AbstractAsyncContextManager[AsyncIterator[Announcement]]]

POLL = 10.0
"""Seconds after which waiters look for themselves, should an announcement have been lost."""
_POLL_SHARES = 20
"""In how many parts waiters do so: all at once, thousands of reads would delay every other."""
_BREATH = 0.1
"""Seconds between looks while the store is away and a caller still waits."""
_FIRST_RETRY = 0.1
_LAST_RETRY = 1.0


class Hub:
    """Hears every announcement; looks for those who wait, and drops what is outdated."""

    def __init__(
        self,
        store: RunStore,
        subscribe: Subscribe,
        cache: NearCache,
        pace: Pace | None = None,
        observer: CallObserver | None = None,
        watch: Watch | None = None,
        estimated: Estimated | None = None,
    ) -> None:
        """Tell `pace` of every run that starts or ends, and `watch` of all that is announced.

        Answers about runs that have not ended tell what is `estimated` of them.
        """
        self._estimated = estimated
        self._observer = observer or CallObservers()
        self._watch = watch
        self._pace = pace or Pace()
        self._store = store
        self._subscribe = subscribe
        self._cache = cache
        self._topics: dict[RunKey, Topic] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self.hearing = False
        """Whether announcements arrive now."""
        self.regained: Callable[[], None] = lambda: None
        """Told when they arrive again, and some were lost; who needs it sets it."""
        self._closing = False

    @property
    def listeners(self) -> int:
        """How many wait or watch now."""
        return sum(topic.holders for topic in self._topics.values())

    async def read(self, key: RunKey, *, waits: bool = False) -> Answer:
        """What exists now; `waits` for somebody who waits. Raises RunNotFound, StoreUnavailable."""
        moment = self._cache.moment
        snapshot = await self._store.read(key, waits=waits)
        try:
            answer = answer_from(snapshot, self._estimated)
        except RecordDamaged:
            self._observer.damaged()
            raise
        self._cache.put(key, answer, moment)
        return answer

    async def wait(
        self,
        key: RunKey,
        met: Callable[[Answer], bool],
        steps: AbstractSet[str],
        *,
        deadline: float,
        grace: float,
        min_revision: int,
    ) -> Answer:
        """The first answer that is `met`, or what exists at the deadline, which is loop time.

        The end of `steps` may make it so; with none, the end of the run. What is seen at the
        deadline may be `grace` seconds late. Raises RunNotFound, and StoreUnavailable when nothing
        could be read at all.
        """
        topic = self._hold(key)
        try:
            seen: Answer | None = None
            if topic.holders == 1 and self.hearing:
                # Most often it is there already, and there is nobody to share this look with.
                generation = topic.generation
                seen = await self.read(key, waits=True)
                if met(seen):
                    return seen
                topic.settle(seen, generation)
            elif min_revision:
                topic.generation += 1  # the caller may know of a start that was not announced yet
            return await self._met(topic, met, steps, seen, deadline, grace)
        finally:
            self._let_go(topic)

    async def watch(self, key: RunKey) -> AsyncGenerator[Answer]:
        """What exists now, and after every change, until `release`. Raises as `wait` does."""
        told: Answer | None = None

        def changed(answer: Answer) -> bool:
            return told is None or answer.news != told.news

        topic = self._hold(key)
        try:
            while True:
                seen = await self._met(topic, changed, None)
                if changed(seen):
                    told = seen
                    yield told
                if self._closing:
                    return  # its watcher resumes elsewhere
        finally:
            self._let_go(topic)

    async def _met(
        self,
        topic: Topic,
        met: Callable[[Answer], bool],
        steps: AbstractSet[str] | None,
        seen: Answer | None = None,
        deadline: float | None = None,
        grace: float = 0.0,
    ) -> Answer:
        """Wait for it; `seen` is what this caller's own look has just seen."""
        if not self.hearing:
            # A look that is under way may have missed what nobody has announced.
            topic.generation += 1
        known = topic.latest or seen
        if known is not None and (self._closing or met(known)):
            return known
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        waiter = Waiter(met, steps, topic.generation, future, known, self._closing)
        timer: asyncio.TimerHandle | None = None
        topic.add(waiter)
        try:
            if known is None:
                self._ask(topic)
            else:
                self._look_if_asked(topic)
            if deadline is not None:
                timer = loop.call_at(deadline, self._expire, topic, waiter, grace)
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            topic.remove(waiter)

    def _hold(self, key: RunKey) -> Topic:
        """The topic, which hears what is announced about `key` until it is let go."""
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(key)
        topic.holders += 1
        return topic

    def _let_go(self, topic: Topic) -> None:
        topic.holders -= 1
        if not topic.holders:
            del self._topics[topic.key]

    def outdate(self, key: RunKey) -> None:
        """Give nobody what is known of this run until it was read again."""
        self._cache.drop(key)
        topic = self._topics.get(key)
        if topic is not None:
            topic.generation += 1

    def release(self) -> None:
        """Let nobody wait any more: whoever does is answered with what exists now."""
        self._closing = True
        for topic in list(self._topics.values()):
            for waiter in list(topic.waiters):
                self._expire(topic, waiter, _BREATH)

    async def run(self) -> None:
        """Listen for ever. Whoever starts this task cancels it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(), name="announcements")
                group.create_task(self._poll(), name="poll")
        finally:
            for look in self._looks:
                look.cancel()
            await asyncio.gather(*self._looks, return_exceptions=True)

    def _expire(self, topic: Topic, waiter: Waiter, grace: float) -> None:
        """Its time is over: give it what exists, and what it has seen if that cannot be read."""
        waiter.overdue = True
        if waiter.seen is None:
            return  # its first look is under way, and the store's patience is short
        if not self.hearing:
            topic.generation += 1
        if topic.latest is not None:
            waiter.give(topic.latest)
            return
        self._ask(topic)
        asyncio.get_running_loop().call_later(grace, waiter.give_seen)

    def _ask(self, topic: Topic) -> None:
        """Have this topic looked at as it is now."""
        topic.asked = topic.generation
        self._look_if_asked(topic)

    def _look_if_asked(self, topic: Topic) -> None:
        if topic.look is None and topic.waiters and topic.looked < topic.asked:
            # For all who wait, so it takes no log fields nor trace of one of them along.
            topic.look = asyncio.create_task(
                self._look(topic), name=f"read {topic.key}", context=Context()
            )
            self._looks.add(topic.look)
            topic.look.add_done_callback(self._looks.discard)

    async def _look(self, topic: Topic) -> None:
        """Look until nobody asks any more, or nobody waits."""
        try:
            while topic.waiters and topic.looked < topic.asked:
                generation = topic.generation
                try:
                    topic.settle(await self.read(topic.key, waits=True), generation)
                except StoreUnavailable as error:
                    topic.refuse(error, generation, unseen_only=True)
                    await asyncio.sleep(_BREATH)
                except Exception as error:  # noqa: BLE001  # each waiter gets it
                    topic.looked = generation
                    topic.refuse(error, generation, unseen_only=False)
                    # Who comes before those have left must look: this look has left no answer.
                    topic.generation += 1
        finally:
            topic.look = None

    async def _hear(self) -> None:
        retry = _FIRST_RETRY
        while True:
            try:
                async with self._subscribe() as announcements:
                    self._cache.open()
                    self.hearing = True
                    # What was announced before is lost.
                    for topic in self._topics.values():
                        self._stir(topic)
                    self.regained()
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
                    self._stir(topic)

    def _stir(self, topic: Topic) -> None:
        """Look, whatever happened."""
        topic.generation += 1
        self._ask(topic)

    def _dispatch(self, announcement: Announcement) -> None:
        kind = announcement.kind
        if kind.outdates_results or self._cache.keeps_other(announcement.key, announcement.run):
            self._cache.drop(announcement.key)
        if kind is EventKind.STARTED or kind.ends_run:
            self._pace.note(ended=kind.ends_run)
        topic = self._topics.get(announcement.key)
        if topic is not None and topic.hear(announcement):
            self._ask(topic)
        if self._watch is not None:
            self._watch(announcement)
