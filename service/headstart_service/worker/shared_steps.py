"""Work that several runs of one worker wait for, each piece of it done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ..domain import RunKey
from .upkeep import ended
from .worker_observer import StepOutcome

HOLD: Final = 1.0
"""Seconds that the steps of a replaced run go on, at most, until its next revision asks for them.

It was queued when the run was replaced: a worker with a free slot claims it within milliseconds."""
_OF_THE_FIRST: Final = tuple(each.name for each in fields(StepOutcome))
_OF_LATER_CALLERS: Final = ("state", "error", "failure_reason")
"""What a caller receives of a shared step's outcome."""


@dataclass(slots=True, eq=False)
class SharedStep:
    """One piece of work under way."""

    key: Hashable
    run: RunKey
    """Whose it was at first."""
    digest: str
    """The digest of its step there."""
    outcome: StepOutcome
    stopped: Callable[[StepOutcome], None]
    """Receives the outcome once the work has ended while no run waited for it."""
    task: asyncio.Task[Any] = field(init=False)
    waiting: int = 0
    delivered: bool = False
    """Whether a run has received the whole outcome. Costs are part of it, and count once."""


class SharedSteps:
    """Runs each step once for all runs that wait for it (single flight).

    A step that no run waits for any more is cancelled. That of a replaced run goes on for a while:
    the next revision may need it.
    """

    def __init__(self) -> None:
        self.hold_for = HOLD
        self._flying: dict[Hashable, SharedStep] = {}
        self._expected: dict[RunKey, Collection[str]] = {}
        self._held: dict[RunKey, asyncio.TimerHandle] = {}

    @property
    def waiting(self) -> Mapping[Hashable, int]:
        """What is under way, and how many wait for each."""
        return {key: flight.waiting for key, flight in self._flying.items()}

    def is_under_way(self, run: RunKey, digest: str) -> bool:
        """Whether this step of a key is computed now."""
        return any(f.run == run and f.digest == digest for f in self._flying.values())

    async def share(
        self,
        key: Hashable,
        run: RunKey,
        digest: str,
        outcome: StepOutcome,
        work: Callable[[StepOutcome], Coroutine[Any, Any, Any]],
        *,
        fresh: bool = False,
        stopped: Callable[[StepOutcome], None] = lambda _: None,
    ) -> Any:
        """Return what `work` gives, or join this key's work under way, unless it must be `fresh`.

        Fills `outcome`. Of several callers only the first to return receives costs and tries. The
        last caller, when cancelled, returns as soon as the work has ended. If no caller waits then,
        `stopped` of the first one receives what it has cost.
        """
        while True:
            flight = None if fresh else self._flying.get(key)
            if flight is None:
                flight = self._begin(SharedStep(key, run, digest, StepOutcome(), stopped), work)
            flight.waiting += 1
            try:
                await ended(flight.task)
            finally:
                flight.waiting -= 1
                if not flight.waiting and not flight.task.done() and not self._is_held(flight):
                    self._drop(flight)
                    await ended(flight.task)
                    _deliver(flight, outcome)
            # The timer may have dropped the flight just before this caller joined: begin anew then.
            if not flight.task.cancelled():
                _deliver(flight, outcome)
                return flight.task.result()

    @contextmanager
    def expecting(self, run: RunKey, digests: Collection[str]) -> Iterator[None]:
        """While a run needs steps of these digests, those of its key that it does not need go."""
        self._expected[run] = digests
        for flight in self._idle(run):
            if flight.digest not in digests:
                self._drop(flight)
        try:
            yield
        finally:
            if self._expected.get(run) is digests:
                del self._expected[run]

    def hold(self, run: RunKey) -> None:
        """Let this run's steps go on for a while though it will be cancelled: it was replaced."""
        if run in self._held:
            self._held[run].cancel()
        loop = asyncio.get_running_loop()
        self._held[run] = loop.call_later(self.hold_for, self._release, run)

    async def aclose(self) -> None:
        """Cancel what is left, and return when it has ended."""
        for timer in self._held.values():
            timer.cancel()
        left = list(self._flying.values())
        for flight in left:
            self._drop(flight)
        if left:
            await asyncio.wait({flight.task for flight in left})

    def _begin(
        self, flight: SharedStep, work: Callable[[StepOutcome], Coroutine[Any, Any, Any]]
    ) -> SharedStep:
        current = asyncio.current_task()
        name = current.get_name() if current else None
        flight.task = asyncio.create_task(work(flight.outcome), name=name)
        flight.task.add_done_callback(lambda _: self._end(flight))
        self._flying[flight.key] = flight
        return flight

    def _is_held(self, flight: SharedStep) -> bool:
        run = flight.run
        return run in self._held and flight.digest in self._expected.get(run, ())

    def _idle(self, run: RunKey) -> list[SharedStep]:
        """Return the steps that go on though no run waits for them."""
        return [f for f in self._flying.values() if f.run == run and not f.waiting]

    def _release(self, run: RunKey) -> None:
        del self._held[run]
        for flight in self._idle(run):
            self._drop(flight)

    def _drop(self, flight: SharedStep) -> None:
        flight.outcome.unwanted = True
        self._forget(flight)  # later callers must not join the cancelled one
        flight.task.cancel()

    def _end(self, flight: SharedStep) -> None:
        self._forget(flight)
        if not flight.waiting:
            flight.stopped(flight.outcome)

    def _forget(self, flight: SharedStep) -> None:
        if self._flying.get(flight.key) is flight:
            del self._flying[flight.key]


def _deliver(flight: SharedStep, outcome: StepOutcome) -> None:
    """Copy how the step ended; what it cost and its tries go to the first caller alone."""
    for name in _OF_LATER_CALLERS if flight.delivered else _OF_THE_FIRST:
        setattr(outcome, name, getattr(flight.outcome, name))
    flight.delivered = True
