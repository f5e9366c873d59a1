"""What a worker reports to its observers: metrics, traces, logs. They change nothing.

A run and each of its steps is one context, entered and left in the task that does the work. So an
observer can keep time, or make its span the current one. Observers return at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from ..domain import Claim, FailureReason
from .cost_meter import CostMeter

UNWANTED: Final = "it was cancelled or replaced"
"""Why a run was stopped that is not wanted any more. Other reasons are faults."""


@dataclass(frozen=True, slots=True)
class FailedTry:
    """One try of a step that failed."""

    ended_ns: int
    """When, in nanoseconds since the Unix epoch by this machine's clock."""
    error: str
    """What callers may read of it."""


class RunEnd(StrEnum):
    """How a worker's work on a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    HANDED_ON = "handed_on"
    """Another worker continues the run."""
    STOPPED = "stopped"


class StepEnd(StrEnum):
    """How a worker's work on a step ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class ItemEnd(StrEnum):
    """How an item of a step ended that runs once for each of a list."""

    COMPLETED = "completed"
    FAILED = "failed"
    REUSED = "reused"
    """Its value or its failure was remembered, or shared with another run."""


@dataclass(slots=True)
class RunOutcome:
    """How a run ended; the worker fills it in before the run's context is left."""

    state: RunEnd = RunEnd.STOPPED
    error: str = ""
    """What callers may read of it; of a run that was stopped, why."""
    slot_seconds: float | None = None
    """How long it had a slot; None means all of the time."""
    settled_seconds: float = 0.0
    """How long it waited for its inputs to be stable."""


@dataclass(slots=True)
class StepOutcome:
    """How a step ended; the runner fills it in before the step's context is left."""

    state: StepEnd = StepEnd.STOPPED
    error: str = ""
    """What callers may read of it."""
    failure_reason: FailureReason | None = None
    """Why it failed: `error` as data."""
    attempts: int = 1
    memoised: bool = False
    """Whether its result was remembered, or shared with the run of another key."""
    tried: list[FailedTry] = field(default_factory=list)
    """The tries that failed."""
    unwanted: bool = False
    """Whether it was cancelled because no run waits for it. A task's own count of its
    cancellations does not show that: Python 3.11's TaskGroup leaves it raised."""
    meter: CostMeter = field(default_factory=CostMeter)
    """What it has cost so far, all its tries together."""
    items: Counter[ItemEnd] = field(default_factory=Counter)
    """The items that have ended on this worker, of a step that runs once for each of a list."""


class WorkObserver(Protocol):
    """Watches runs and their steps."""

    def run(self, claim: Claim, outcome: RunOutcome) -> AbstractContextManager[None]:
        """Open from the claim until the run has ended here; then `outcome` holds how."""
        ...

    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> AbstractContextManager[None]:
        """Open while the step is tried, pauses between its tries included."""
        ...


class WorkObservers:
    """Several observers as one, entered in their order and left in the opposite one."""

    def __init__(self, observers: Sequence[WorkObserver] = ()) -> None:
        self._observers = tuple(observers)

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """As `WorkObserver.run`."""
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.run(claim, outcome))
            yield

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """As `WorkObserver.step`."""
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.step(claim, name, outcome))
            yield
