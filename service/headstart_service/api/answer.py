"""A response that is ready to send, with what its senders must know of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..domain import Snapshot, StepState
from ..engine.fragments import merged
from ..errors import RecordDamaged
from .convert import results_bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A serialized GetResultsResponse."""

    data: bytes
    pipeline: str
    revision: int
    final: bool
    """Whether the run has ended."""
    states: Mapping[str, StepState]
    lives_for: float
    """Seconds until the run expired, when it was read."""
    complete: bool = field(init=False)
    """Whether every step of the run has its result."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "complete", self.holds(self.states))

    def holds(self, steps: Iterable[str]) -> bool:
        """Whether all of these steps have their results."""
        states = self.states
        return all(states.get(step) is StepState.COMPLETED for step in steps)

    def settles(self, steps: Sequence[str]) -> bool:
        """Whether all of these steps have ended; none given means all of the run's.

        One that the run does not have will never end, so it counts as if it had.
        """
        if self.final:
            return True
        states = self.states
        return all(states[step].ended for step in steps or states if step in states)


def answer_from(snapshot: Snapshot) -> Answer:
    """The answer that tells all of `snapshot`; RecordDamaged if no caller could read it."""
    body = merged(snapshot.body, snapshot.summary.created_us)
    if body is None:
        raise RecordDamaged(str(snapshot.summary.key))
    return Answer(
        data=results_bytes(snapshot, body),
        pipeline=snapshot.summary.pipeline,
        revision=snapshot.summary.revision,
        final=snapshot.summary.status.ended,
        states=snapshot.states,
        lives_for=snapshot.lives_for,
    )
