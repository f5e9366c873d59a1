"""A run that callers wait for, and what each of them waits to see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ...domain import Announcement, EventKind, RunKey
from .answer import Answer

_FOR_WATCHERS = frozenset({EventKind.CLAIMED, EventKind.RELEASED, EventKind.UNSERVED})
"""What no one waits for, and only those want to see who watch every change."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller that waits until an answer is what it wants, or its time is over."""

    met: Callable[[Answer], bool]
    """Whether this answer ends its wait."""
    steps: AbstractSet[str] | None
    """The steps whose end may end its wait; none for the run's, and None for any change."""
    since: int
    """The topic's generation when it came: only a look of that one or a later is news to it."""
    future: asyncio.Future[Answer]
    seen: Answer | None = None
    overdue: bool = False
    """Whether its time is over, so that the next answer is its answer."""

    def give(self, answer: Answer) -> None:
        """End its wait with this answer."""
        if not self.future.done():
            self.future.set_result(answer)

    def give_seen(self) -> None:
        """End its wait with what it has seen, unless it has ended."""
        if self.seen is not None:
            self.give(self.seen)

    def fail(self, error: Exception) -> None:
        """End its wait with this error."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Topic:
    """A run that somebody waits for.

    `generation` grows whenever the run may have changed; `asked` is the last of them that somebody
    wants looked at, `looked` the one at which the last look began, and `answer` what that look saw.
    """

    key: RunKey
    generation: int = 0
    asked: int = 0
    looked: int = -1
    started: str = ""
    """The id of the run whose start was announced last."""
    started_at: int = 0
    """The generation that this announcement began."""
    answer: Answer | None = None
    holders: int = 0
    """How many callers keep it, whether they wait right now or not."""
    waiters: set[Waiter] = field(default_factory=set)
    particular: set[Waiter] = field(default_factory=set)
    """Those of the waiters that more than the run's end may satisfy."""
    look: asyncio.Task[None] | None = None

    @property
    def latest(self) -> Answer | None:
        """What the last look saw, if nothing was announced since it began."""
        return self.answer if self.looked == self.generation else None

    def add(self, waiter: Waiter) -> None:
        """Let it hear and be given what there is."""
        self.waiters.add(waiter)
        if waiter.steps is None or waiter.steps:
            self.particular.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        """It waits no more."""
        self.waiters.discard(waiter)
        self.particular.discard(waiter)

    def hear(self, announcement: Announcement) -> bool:
        """Take note of it; whether it may be what one of the waiters waits for."""
        if announcement.kind is EventKind.STARTED:
            if self.answer is not None and self.answer.run == announcement.run:
                return False  # the look that saw it was faster than the announcement
            self.started, self.started_at = announcement.run, self.generation + 1
        self.generation += 1
        return self._concerns(announcement)

    def _concerns(self, announcement: Announcement) -> bool:
        """Whether this may be what one of the waiters waits for."""
        if announcement.kind in _FOR_WATCHERS:
            return any(waiter.steps is None for waiter in self.particular)
        if announcement.kind is EventKind.STARTED:
            return self.answer is not None  # else the first look is under way: see settle
        if not announcement.kind.ends_steps or self.looked < 0:
            return True  # or, during the first look, it may be what a waiter to come waits for
        ended = announcement.steps
        return any(w.steps is None or not w.steps.isdisjoint(ended) for w in self.particular)

    def settle(self, answer: Answer, generation: int) -> None:
        """Give the answer of a look that began at this generation to all whom it satisfies."""
        if generation < self.looked:
            return  # a later look was faster
        self.answer, self.looked = answer, generation
        if generation < self.started_at and answer.run != self.started:
            self.asked = self.generation  # this look may have seen the run before that one
        for waiter in self.waiters:
            if waiter.since <= generation:
                waiter.seen = answer
                if waiter.overdue or waiter.met(answer):
                    waiter.give(answer)

    def refuse(self, error: Exception, generation: int, *, unseen_only: bool) -> None:
        """Give an error instead; maybe only to those who have nothing else to be given."""
        for waiter in self.waiters:
            if waiter.since <= generation and not (unseen_only and waiter.seen is not None):
                waiter.fail(error)
