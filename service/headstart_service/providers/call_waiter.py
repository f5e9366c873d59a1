"""A call that waits for its permit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ..domain import Ask, CallOutcome, Turn
from ..worker.step_deadline import StepClock
from .permit import Permit


@dataclass(slots=True, eq=False)
class Waiter:
    """A call without a permit."""

    order: tuple[int, int]
    ask: Ask
    run: str
    paid: bool
    """Whether its step has paid for a call before this one."""
    clock: StepClock | None
    since: float
    """When it came, in loop time."""
    until: float
    """When its patience ends, in loop time."""
    needed_at: float
    """When its run is needed, by the monotonic clock; 0 for at once."""
    limit: asyncio.Timeout
    granted: asyncio.Future[Permit] = field(default_factory=asyncio.Future)
    stopped: bool = False
    """Whether it has stopped its step's clock."""
    trouble: Turn | None = None
    """What it waits for, if that is no turn."""

    def __lt__(self, other: Waiter) -> bool:
        return self.order < other.order

    def is_at_once(self, order_us: int) -> bool:
        """Whether it has this place, and is needed at once."""
        return self.order[0] == order_us and not self.needed_at

    def hurry(self, order_us: int, until: float) -> None:
        """Let it be needed at once, and wait until then at most, in loop time."""
        self.order = order_us, self.order[1]
        self.needed_at, self.until = 0.0, min(until, self.until)
        if not self.limit.expired():
            self.limit.reschedule(self.until)

    def stop(self) -> None:
        """Let its step's clock stand still."""
        if not self.stopped and self.clock is not None:
            self.stopped = True
            self.clock.stop()

    def go(self) -> None:
        """Let its step's clock go on."""
        if self.stopped and self.clock is not None:
            self.stopped = False
            self.clock.go()

    def give_back(self) -> None:
        """Free the permit that was granted while the caller stopped waiting."""
        granted = self.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            granted.result().settle(CallOutcome.UNUSED, "")
