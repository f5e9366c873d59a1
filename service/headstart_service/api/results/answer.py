"""A response that is ready to send, with what its senders must know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from weakref import ReferenceType, ref

from google.protobuf.message import DecodeError

from ...domain import Snapshot, StepState
from ...domain.errors import RecordDamaged
from ...values.fragments import merged
from ..messages import results_bytes, watch_bytes

_LARGE = 64 * 1024
"""Bytes from which on answers are compared by a digest: every watcher compares every answer."""


class Message:
    """A serialized WatchResultsResponse, which all watchers that send it now share."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(frozen=True, slots=True)
class Answer:
    """A serialized GetResultsResponse."""

    data: bytes
    pipeline: str
    revision: int
    run: str
    """The run's id: what tells the answers of two runs of a key apart."""
    final: bool
    """Whether the run has ended."""
    states: Mapping[str, StepState]
    lives_for: float
    """Seconds until the run expired, when it was read."""
    news: bytes = b""
    """Equal in two answers if the later one has no news: `data` without its estimates, or, of a
    large answer, its digest."""
    complete: bool = field(init=False)
    """Whether every step of the run has its result."""

    _shared: list[ReferenceType[Message]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    """The message, while a watcher holds it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "complete", self.holds(self.states))

    def message(self) -> Message:
        """Return the answer as a watcher gets it; made once for all that hold it at a time."""
        made = self._shared[0]() if self._shared else None
        if made is None:
            made = Message(watch_bytes(self.data))
            self._shared[:] = [ref(made)]
        return made

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


def answer_from(
    snapshot: Snapshot,
    estimated: Callable[[Snapshot], Mapping[str, tuple[int, int]]] | None = None,
) -> Answer:
    """The answer that tells all of `snapshot`, and what is estimated of a run that has not ended.

    Raises RecordDamaged if no caller could read it.
    """
    body = merged(snapshot.body, snapshot.summary.created_us)
    if body is None:
        raise RecordDamaged(str(snapshot.summary.key))
    data = news = results_bytes(snapshot, body)
    final = snapshot.summary.status.ended
    if not final and estimated is not None:
        try:
            data = results_bytes(snapshot, body, estimated(snapshot))
        except DecodeError as error:
            raise RecordDamaged(str(snapshot.summary.key)) from error
    return Answer(
        data=data,
        pipeline=snapshot.summary.pipeline,
        revision=snapshot.summary.revision,
        run=snapshot.run,
        final=final,
        states=snapshot.states,
        lives_for=snapshot.lives_for,
        news=data if final else news if len(news) < _LARGE else _digest(news),
    )


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
