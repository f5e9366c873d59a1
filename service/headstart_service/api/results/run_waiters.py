"""The callers that wait for one run, and what each of them waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ...domain import ALL_STEPS, Announcement, Awaits, EventKind, RunKey
from .answer import Answer

_FOR_WATCHERS = frozenset({EventKind.CLAIMED, EventKind.RELEASED, EventKind.UNSERVED})
"""Events that end no wait; only watchers need them."""


def awaits_of(steps: AbstractSet[str] | None) -> Awaits:
    """Return what must be announced for a caller that waits for these `Waiter.steps`."""
    if steps is None:
        return Awaits.CHANGES
    return Awaits.STEPS if steps else Awaits.END


def required_of(steps: AbstractSet[str] | None) -> AbstractSet[str]:
    """Return the steps that need not settle for a caller that waits for `Waiter.steps`.

    One that watches asks for none: it may be there while a user types.
    """
    if steps is None:
        return frozenset()
    return steps or frozenset({ALL_STEPS})


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller that waits until an answer is what it wants, or its time is over."""

    met: Callable[[Answer], bool]
    """Whether this answer ends its wait."""
    steps: AbstractSet[str] | None
    """The steps whose end may end its wait; empty: the run's end; None: any change."""
    since: int
    """The run's generation when it came: it takes only reads of that one or a later one."""
    future: asyncio.Future[Answer]
    seen: Answer | None = None
    overdue: bool = False
    """Whether its time is over, so that the next answer is its answer."""

    def give(self, answer: Answer) -> None:
        """End its wait with this answer."""
        if not self.future.done():
            self.future.set_result(answer)

    def give_seen(self) -> None:
        """End its wait with the last answer that it got, if there is one."""
        if self.seen is not None:
            self.give(self.seen)

    def fail(self, error: Exception) -> None:
        """End its wait with this error."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class ReadTime:
    """When a run was read."""

    moment: int
    """The near-cache's moment when the read began."""
    began: float
    """The same on the monotonic clock."""
    read_at: float
    """When the store answered, in seconds of its own clock."""

    def local(self, later: float) -> float:
        """Return the monotonic time of a `later` time of the store's clock, or an earlier one."""
        return min(self.began + later - self.read_at, time.monotonic())


@dataclass(slots=True, eq=False)
class RunWaiters:
    """The callers that wait for one run, and the read that they share.

    `generation` grows whenever the run may have changed. `wanted` is the last of them that a waiter
    needs read, `read_at` the one at which the last read began, and `answer` its result.
    """

    key: RunKey
    generation: int = 0
    wanted: int = 0
    read_at: int = -1
    started: str = ""
    """The id of the run whose start was announced last."""
    started_at: int = 0
    """The generation that this announcement began."""
    answer: Answer | None = None
    read: ReadTime | None = None
    """When it was read."""
    ended: Answer | None = None
    """The last answer that an announcement carried: the end of its run."""
    announced: Awaits = Awaits.NOTHING
    """What has been announced to this process since the last read."""
    awaited: AbstractSet[str] = frozenset()
    """The steps of which the store knows that callers wait for them."""
    holders: int = 0
    """How many callers keep it, whether they wait right now or not."""
    waiters: set[Waiter] = field(default_factory=set)
    particular: set[Waiter] = field(default_factory=set)
    """Those of the waiters that more than the run's end may satisfy."""
    reading: asyncio.Task[None] | None = None

    @property
    def awaits(self) -> Awaits:
        """What must be announced for all its waiters."""
        return max((awaits_of(waiter.steps) for waiter in self.waiters), default=Awaits.NOTHING)

    @property
    def required(self) -> AbstractSet[str]:
        """The steps for which its waiters wait until a deadline."""
        return frozenset().union(*(required_of(waiter.steps) for waiter in self.waiters))

    @property
    def latest(self) -> Answer | None:
        """The result of the last read, if nothing was announced since it began."""
        return self.answer if self.read_at == self.generation else None

    def add(self, waiter: Waiter) -> None:
        """Let it take part in reads."""
        self.waiters.add(waiter)
        if waiter.steps is None or waiter.steps:
            self.particular.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        """End its part in reads."""
        self.waiters.discard(waiter)
        self.particular.discard(waiter)

    def receive(self, announcement: Announcement) -> bool:
        """Note an announcement; return whether it may end the wait of one of the waiters."""
        if announcement.kind is EventKind.STARTED:
            if self.answer is not None and self.answer.run == announcement.run:
                return False  # the read returned its end before the announcement arrived
            self.started, self.started_at = announcement.run, self.generation + 1
            # The new run's record knows nothing of this process yet.
            self.announced, self.awaited = Awaits.NOTHING, frozenset()
        self.generation += 1
        return self._concerns(announcement)

    def _concerns(self, announcement: Announcement) -> bool:
        """Return whether an announcement may end the wait of one of the waiters."""
        if announcement.kind in _FOR_WATCHERS:
            return any(waiter.steps is None for waiter in self.particular)
        if announcement.kind is EventKind.STARTED:
            return self.answer is not None  # else the first read is still running: see settle
        if not announcement.kind.ends_steps or self.read_at < 0:
            return True  # or, during the first read, a later waiter may wait for it
        ended = announcement.steps
        return any(w.steps is None or not w.steps.isdisjoint(ended) for w in self.particular)

    def end(self, ended: Answer) -> bool:
        """End the waits of callers that know this run, which has ended with this answer.

        Return whether there are no others. A caller that came after the last read may know a later
        run, so it must read: an announcement may arrive late.
        """
        self.ended = ended
        if self.answer is None or self.answer.run != ended.run:
            return False
        self.answer = ended
        self._give(ended, self.read_at)
        return all(waiter.since <= self.read_at for waiter in self.waiters)

    def settle(
        self,
        answer: Answer,
        generation: int,
        announced: Awaits,
        read: ReadTime | None = None,
        awaited: AbstractSet[str] = frozenset(),
    ) -> Answer:
        """End each wait that this answer satisfies; its `read` began at this generation.

        What is `announced` arrives from that read on, and the store knows that callers wait for the
        steps `awaited`. Return the answer, or the end of its run if
        that was announced meanwhile.
        """
        if self.ended is not None and self.ended.run == answer.run and not answer.final:
            answer = self.ended
        if generation < self.started_at and answer.run != self.started:
            # This read may have returned the run that this one replaced.
            self.wanted = self.generation
        else:
            self.announced = max(self.announced, announced)
            self.awaited |= awaited
        if generation < self.read_at:
            return answer  # a later read was faster
        self.answer, self.read_at, self.read = answer, generation, read
        self._give(answer, generation)
        return answer

    def _give(self, answer: Answer, generation: int) -> None:
        """Give an answer to each waiter that takes reads of this generation."""
        for waiter in self.waiters:
            if waiter.since <= generation:
                waiter.seen = answer
                if waiter.overdue or waiter.met(answer):
                    waiter.give(answer)

    def refuse(self, error: Exception, generation: int, *, unseen_only: bool) -> None:
        """End waits with an error; with `unseen_only` only those without any answer so far."""
        for waiter in self.waiters:
            if waiter.since <= generation and not (unseen_only and waiter.seen is not None):
                waiter.fail(error)
