"""Callers that wait for runs: they share the process's subscription and, for each run, its reads.

A read begins when an announcement may end a wait; its answer ends every wait that it satisfies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import Context
from functools import partial

from ...domain import (
    Announcement,
    Awaits,
    EventKind,
    RunKey,
    Snapshot,
)
from ...domain.errors import RecordDamaged, StoreUnavailable
from ...domain.run_store import RunStore
from ..call_observer import CallObserver, CallObservers
from ..deadline import RETRY_PAUSE, SHUTDOWN, Deadline
from .answer import Answer, answer_from
from .followers import Followers
from .near_cache import NearCache
from .run_waiters import ReadTime, RunWaiters, Waiter, awaits_of, required_of
from .subscription import Subscribe, Subscription

Estimated = Callable[[Snapshot], Mapping[str, tuple[int, int]]]

POLL = 10.0
"""Seconds after which waiters read again, in case an announcement was lost."""
_POLL_SHARES = 20
"""In how many parts they do so: thousands of reads at once would delay every other call."""


class Waiting:
    """Lets callers wait for runs, reads for them, and drops outdated answers.

    Each announcement that may end a wait causes one read, which all waiters of the run share.
    """

    def __init__(
        self,
        store: RunStore,
        subscribe: Sequence[Subscribe],
        cache: NearCache,
        observer: CallObserver | None = None,
        *,
        section: Callable[[RunKey], int] = lambda _: 0,
        estimated: Estimated | None = None,
        poll: float = POLL,
    ) -> None:
        """`subscribe` to each section of the runs; a key's is at the index `section`.

        While one section's server is away, announcements of the others arrive. Answers about runs
        that have not ended hold what is `estimated` of them.
        `poll` is the number of seconds after which waiters read again without an announcement.
        """
        self._estimated = estimated
        self._observer = observer or CallObservers()
        self.store = store
        self._cache = cache
        self._poll_every = poll
        self._runs: dict[RunKey, RunWaiters] = {}
        self.followers = Followers()
        self._reads: set[asyncio.Task[None]] = set()
        self._section = section
        self._subscriptions = [
            Subscription(
                each,
                opened=partial(self._subscribed, number),
                closed=partial(self._lost, number),
                receive=self._receive,
            )
            for number, each in enumerate(subscribe)
        ]
        self._opened = [0] * len(subscribe)
        """How often each section was subscribed to."""
        self._closing = False

    @property
    def receiving(self) -> bool:
        """Whether announcements of all sections arrive now."""
        return all(each.active for each in self._subscriptions)

    @property
    def waiters(self) -> int:
        """How many callers wait or watch now."""
        return sum(run.holders for run in self._runs.values())

    async def read(self, key: RunKey, awaits: Awaits = Awaits.NOTHING) -> Answer:
        """Return what exists now, for a caller that `awaits` more.

        Raises RunNotFound and StoreUnavailable.
        """
        answer, _ = await self._read(key, awaits, frozenset())
        run = self._runs.get(key)
        if run is not None and run.answer is not None and run.answer.run != answer.run:
            # This caller knows another run than those that wait, whose start was not announced yet.
            # So later callers must read: what the others know may be older.
            run.generation += 1
        return answer

    async def wait(
        self,
        key: RunKey,
        met: Callable[[Answer], bool],
        steps: AbstractSet[str],
        *,
        deadline: Deadline,
        min_revision: int,
    ) -> Answer:
        """Return the first answer that is `met`, or what exists when the deadline's wait is over.

        The end of `steps` may make it so; with none, the end of the run. Raises RunNotFound, and
        StoreUnavailable when nothing could be read at all.
        """
        ends = asyncio.get_running_loop().time() + deadline.wait
        run = self.join(key)
        try:
            seen: Answer | None = None
            if run.holders == 1 and self._receives(key):
                # Most often the result exists already, and no other caller could share this read.
                seen = await self._read_for(run, awaits_of(steps), required_of(steps))
                if met(seen):
                    return seen
            elif min_revision:
                run.generation += 1  # the caller may know a start that is not announced here yet
            return await self._met(run, met, steps, seen, ends, deadline.grace)
        finally:
            self.leave(run)

    async def watch(self, key: RunKey) -> AsyncGenerator[Answer]:
        """Yield what exists now, and after every change, until `release`. Raises as `wait` does."""
        sent: Answer | None = None

        def changed(answer: Answer) -> bool:
            return sent is None or answer.news != sent.news

        run = self.join(key)
        try:
            while True:
                seen = await self._met(run, changed, None)
                if changed(seen):
                    sent = seen
                    yield sent
                if self._closing:
                    return  # its watcher resumes on another replica
        finally:
            self.leave(run)

    async def _met(
        self,
        run: RunWaiters,
        met: Callable[[Answer], bool],
        steps: AbstractSet[str] | None,
        seen: Answer | None = None,
        ends: float | None = None,
        grace: float = 0.0,
    ) -> Answer:
        """Wait until an answer is `met`; `seen` is what this caller has just read.

        `ends` is on the loop's clock. The read at that moment may end `grace` seconds late.
        """
        if not run.announced:
            # What is known, or being read, may have missed a change that was not announced here.
            run.generation += 1
        known = run.latest or seen
        if known is not None and (self._closing or met(known)):
            return known
        unannounced = run.announced < awaits_of(steps) or not required_of(steps) <= run.awaited
        if unannounced:
            run.generation += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        waiter = Waiter(met, steps, run.generation, future, known, self._closing)
        timer: asyncio.TimerHandle | None = None
        run.add(waiter)
        try:
            if known is None or (unannounced and self._receives(run.key)):
                self._request_read(run)
            else:
                self._read_if_wanted(run)
            if ends is not None:
                timer = loop.call_at(ends, self._expire, run, waiter, grace)
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            run.remove(waiter)

    def join(self, key: RunKey) -> RunWaiters:
        """Return the run's waiters; announcements reach them until `leave`."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = RunWaiters(key)
        run.holders += 1
        return run

    def leave(self, run: RunWaiters) -> None:
        """End what `join` began."""
        run.holders -= 1
        if not run.holders:
            del self._runs[run.key]

    def outdate(self, key: RunKey) -> None:
        """Serve nothing that is known of this run until it has been read again."""
        self._cache.drop(key)
        run = self._runs.get(key)
        if run is not None:
            run.generation += 1

    def release(self) -> None:
        """End every wait with what exists now, and let no call wait from now on."""
        self._closing = True
        for run in list(self._runs.values()):
            for waiter in list(run.waiters):
                self._expire(run, waiter, SHUTDOWN.grace)

    async def run(self) -> None:
        """Receive announcements until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in self._subscriptions:
                    group.create_task(each.run(), name="announcements")
                group.create_task(self._poll(), name="poll")
        finally:
            for reading in self._reads:
                reading.cancel()
            await asyncio.gather(*self._reads, return_exceptions=True)

    def _expire(self, run: RunWaiters, waiter: Waiter, grace: float) -> None:
        """End a wait whose time is over: with what exists, or else with its last answer."""
        waiter.overdue = True
        if waiter.seen is None:
            return  # its first read is under way, and the store's time limit is short
        if run.announced < Awaits.CHANGES:
            run.generation += 1
        if run.latest is not None:
            waiter.give(run.latest)
            return
        self._request_read(run)
        asyncio.get_running_loop().call_later(grace, waiter.give_seen)

    def _request_read(self, run: RunWaiters) -> None:
        """Have the run read as it is now."""
        run.wanted = run.generation
        self._read_if_wanted(run)

    def _read_if_wanted(self, run: RunWaiters) -> None:
        if run.reading is None and run.waiters and run.read_at < run.wanted:
            # For all waiters, so it carries neither the log fields nor the trace of one of them.
            run.reading = asyncio.create_task(
                self._read_shared(run), name=f"read {run.key}", context=Context()
            )
            self._reads.add(run.reading)
            run.reading.add_done_callback(self._reads.discard)

    async def _read_shared(self, run: RunWaiters) -> None:
        """Read until no waiter needs a later generation."""
        try:
            while run.waiters and run.read_at < run.wanted:
                generation = run.generation
                try:
                    await self._read_for(run, run.awaits, run.required)
                except StoreUnavailable as error:
                    run.refuse(error, generation, unseen_only=True)
                    await asyncio.sleep(RETRY_PAUSE)
                except Exception as error:  # noqa: BLE001  # each waiter gets it
                    run.read_at = generation
                    run.refuse(error, generation, unseen_only=False)
                    # This read has returned no answer, so a later caller must read.
                    run.generation += 1
        finally:
            run.reading = None

    async def _read(
        self, key: RunKey, awaits: Awaits, required: AbstractSet[str]
    ) -> tuple[Answer, ReadTime]:
        """Return what `read` returns, kept if its run has ended, and when it was read."""
        moment, began = self._cache.moment, time.monotonic()
        snapshot = await self.store.read(key, awaits=awaits, required=required)
        try:
            answer = answer_from(snapshot, self._estimated)
        except RecordDamaged:
            self._observer.damaged()
            raise
        self._cache.note_read(key, answer.run, moment)
        self._cache.put(key, answer, moment, began)
        return answer, ReadTime(moment, began, snapshot.read_at)

    async def _read_for(
        self, run: RunWaiters, awaits: Awaits, required: AbstractSet[str]
    ) -> Answer:
        """Read for the waiters of a run; raises as `read` does."""
        section = self._section(run.key)
        generation, opened = run.generation, self._opened[section]
        answer, read = await self._read(run.key, awaits, required)
        received = self._receives(run.key) and opened == self._opened[section]
        announced = awaits if received else Awaits.NOTHING
        return run.settle(answer, generation, announced, read, required)

    def _receives(self, key: RunKey) -> bool:
        """Whether announcements of this run arrive now."""
        return self._subscriptions[self._section(key)].active

    def _subscribed(self, section: int) -> None:
        """Read again for every waiter: what was announced before is lost."""
        self._opened[section] += 1
        self._cache.open(section)
        for run in self._runs.values():
            if self._section(run.key) == section:
                self._refresh(run)

    def _lost(self, section: int) -> None:
        """Keep nothing that announcements might have outdated."""
        self._cache.close(section)
        for run in self._runs.values():
            if self._section(run.key) == section:
                run.announced, run.ended = Awaits.NOTHING, None

    def keep_nothing(self) -> None:
        """Keep no answer from now on: the store is another one."""
        self._cache.close_all()

    def keep_again(self) -> None:
        """Keep answers of those sections whose announcements arrive."""
        for section, each in enumerate(self._subscriptions):
            if each.active:
                self._cache.open(section)

    async def _poll(self) -> None:
        while True:
            runs = list(self._runs.values())
            for first in range(_POLL_SHARES):
                await asyncio.sleep(self._poll_every / _POLL_SHARES)
                for run in runs[first::_POLL_SHARES]:
                    self._refresh(run)

    def _refresh(self, run: RunWaiters) -> None:
        """Read again, whatever was announced."""
        self.followers.doubt(run.key)
        run.generation += 1
        self._request_read(run)

    def _receive(self, announcement: Announcement) -> None:
        kind = announcement.kind
        if kind is EventKind.PARTIAL:
            self.followers.receive(announcement)
            return
        if kind is EventKind.RESET:
            for section, each in enumerate(self._subscriptions):
                if each.active:
                    self._lost(section)
                    self._subscribed(section)
            return
        run = self._runs.get(announcement.key)
        ended = None if run is None else self._ended(run, announcement)
        if ended is None and (
            kind.outdates_results or self._cache.keeps_other(announcement.key, announcement.run)
        ):
            self._cache.drop(announcement.key)
        if run is None or not run.receive(announcement):
            return
        if ended is None or not run.end(ended):
            self._request_read(run)

    def _ended(self, run: RunWaiters, announcement: Announcement) -> Answer | None:
        """Return the answer that the end of a run carries, and keep it if it is the latest.

        An announcement may arrive late. So the answer is kept only if the last read returned the
        same run, and nothing has outdated that read.
        """
        result, read = announcement.result, run.read
        if result is None:
            return None
        try:
            answer = answer_from(result, self._estimated)
        except RecordDamaged:
            return None  # a read has the same error, and those that wait get it
        key = announcement.key
        if self._cache.keeps_other(key, announcement.run):
            self._cache.drop(key)
        if read is not None and run.answer is not None and run.answer.run == answer.run:
            self._cache.put(key, answer, read.moment, read.local(result.read_at))
        return answer
