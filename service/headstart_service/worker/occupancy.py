"""What a run occupies of its worker: a slot while it computes, and memory until it ends.

A run that awaits a language model, another service or a timer needs no thread, no process and not
the model. It leaves its slot meanwhile. What computes for a step wraps that in `occupying`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Final


class Occupancy:
    """One run's hold on a slot and on memory. It begins with a slot that is taken already."""

    def __init__(
        self, take: Callable[[], None], free: Callable[[], None], weigh: Callable[[int], None]
    ) -> None:
        """Take a slot with `take`, free it with `free`; `weigh` receives each change in bytes."""
        self._take = take
        self._free = free
        self._weigh = weigh
        self._occupants = 1
        self._beginning = True
        self._bytes = 0
        self.handed_on = False
        """Whether the run stops here, for another worker to go on with it."""
        self._since = time.perf_counter()
        self._before = 0.0
        """Seconds that it had a slot, up to the last time that it left one."""

    @property
    def occupied(self) -> bool:
        """Whether the run has a slot."""
        return self._occupants > 0

    @property
    def seconds(self) -> float:
        """How long the run has had a slot, all times together."""
        present = time.perf_counter() - self._since if self.occupied else 0.0
        return self._before + present

    def enter(self) -> None:
        """Hold the slot until the matching `leave`; take one if the run has none."""
        if not self._occupants:
            self._take()
            self._since = time.perf_counter()
        self._occupants += 1

    def leave(self) -> None:
        """Free the slot if nothing else holds it."""
        if self._occupants == 1:
            self._before = self.seconds
            self._free()
        self._occupants -= 1

    def begun(self) -> None:
        """Note that the run's first steps have begun: from now on these hold the slot."""
        if self._beginning:
            self._beginning = False
            self.leave()

    def keep(self, size: int) -> None:
        """Note that the run keeps so many bytes more until its end."""
        self._bytes += size
        self._weigh(size)

    def end(self) -> None:
        """Note that the run has ended. A step that other runs wait for may still hold the slot."""
        self.begun()
        self.keep(-self._bytes)


OCCUPANCY: Final[ContextVar[Occupancy | None]] = ContextVar("headstart_occupancy", default=None)
"""That of the run whose step runs in this context."""


def within(occupancy: Occupancy | None) -> Context:
    """Return a copy of the present context, for a run that occupies this."""
    context = copy_context()
    context.run(OCCUPANCY.set, occupancy)
    return context


@contextmanager
def occupying() -> Iterator[None]:
    """Hold the slot of the run whose step runs in this context; does nothing outside of one."""
    occupancy = OCCUPANCY.get()
    if occupancy is None:
        yield
        return
    occupancy.enter()
    try:
        yield
    finally:
        occupancy.leave()


def begun() -> None:
    """Note that the first steps of the run in whose context this is have begun."""
    occupancy = OCCUPANCY.get()
    if occupancy is not None:
        occupancy.begun()


def keeping(size: int) -> None:
    """Note that the run in whose context this is keeps so many bytes more."""
    occupancy = OCCUPANCY.get()
    if occupancy is not None:
        occupancy.keep(size)


def occupied_seconds() -> float | None:
    """How long the run in whose context this is has had a slot; None outside of one."""
    occupancy = OCCUPANCY.get()
    return None if occupancy is None else occupancy.seconds


def is_alone() -> bool:
    """Whether the run in whose context this is has the worker to itself, or is of no worker."""
    return OCCUPANCY.get() is None


def is_handed_on() -> bool:
    """Whether the run in whose context this is stops here, for another worker to go on with it."""
    occupancy = OCCUPANCY.get()
    return occupancy is not None and occupancy.handed_on
