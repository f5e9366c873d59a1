"""What a worker tells those who watch it: metrics, traces, logs. They change nothing.

A run and each of its steps is one context, entered in the task that does the work and left in it
too, so a watcher can keep time, or make its span the current one. Watchers return at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..domain import Claim
from .meter import Meter

UNWANTED: Final = "it was cancelled or replaced"
"""Why a run was stopped that nobody wants any more; other reasons are somebody's trouble."""


@dataclass(frozen=True, slots=True)
class FailedTry:
    """One try of a step that failed."""

    ended_ns: int
    """When, in nanoseconds since the Unix epoch by this machine's clock."""
    error: str
    """What callers may read of it."""


@dataclass(slots=True)
class Outcome:
    """How a run or a step ended; who does the work fills it in before its context is left."""

    state: str = "stopped"
    """Of a run: completed, failed, handed_on or stopped; of a step: its StepState, or stopped."""
    error: str = ""
    """What callers may read of it; of a run that was stopped, why."""
    attempts: int = 1
    memoised: bool = False
    """Of a step: whether its result was remembered, or shared with the run of another key."""
    tried: list[FailedTry] = field(default_factory=list)
    """Of a step: the tries that failed."""
    unwanted: bool = False
    """Of a step: whether it was cancelled because no run waits for it. A task's own count of its
    cancellations does not show that: Python 3.11's TaskGroup leaves it raised."""
    meter: Meter = field(default_factory=Meter)
    """Of a step: what it has cost so far, all its tries together."""


class WorkObserver(Protocol):
    """Watches runs and their steps."""

    def run(self, claim: Claim, outcome: Outcome) -> AbstractContextManager[None]:
        """Open from the claim until the run has ended here; then `outcome` says how."""
        ...

    def step(self, claim: Claim, name: str, outcome: Outcome) -> AbstractContextManager[None]:
        """Open while the step is tried, pauses between its tries included."""
        ...


class WorkObservers:
    """Several observers as one, entered in their order and left in the opposite one."""

    def __init__(self, observers: Sequence[WorkObserver] = ()) -> None:
        self._observers = tuple(observers)

    @contextmanager
    def run(self, claim: Claim, outcome: Outcome) -> Iterator[None]:
        """As `WorkObserver.run`."""
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.run(claim, outcome))
            yield

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: Outcome) -> Iterator[None]:
        """As `WorkObserver.step`."""
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.step(claim, name, outcome))
            yield
