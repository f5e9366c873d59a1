"""How much a step may return: one that returns more fails alone, before anything is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from ..base.own_threads import in_own_thread
from ..domain import FailureReason
from ..domain.errors import StepFailed
from .artifacts import ArtifactCodec
from .codec import ResultCodec

ON_LOOP: Final = 64 * 1024
"""Bytes that are encoded or copied on the event loop, a millisecond's work; more in a thread."""
_FLOAT: Final = 3
"""Bytes of the shortest float, as 1.0."""
_LEAST: Final = 2
"""Bytes of an empty object, and of what separates the entries of one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most bytes of results that may be kept."""

    artifact: int = 8 * 1024 * 1024
    """Of one step."""
    run: int = 32 * 1024 * 1024
    """Of all steps of a run. Clients receive 64 MiB in one message."""
    setting: str = "HEADSTART_MAX_ARTIFACT_BYTES"
    """What limits one step."""

    def of(self, max_bytes: int | None) -> Limits:
        """Return the limits of a step that may return so many bytes; None for no own limit."""
        if max_bytes is None or max_bytes >= self.artifact:
            return self
        return replace(self, artifact=max_bytes, setting="its max_bytes")

    def admit(self, held: int, more: int) -> None:
        """Raise StepFailed when so many bytes more than a run holds are too much."""
        if held + more > self.run:
            raise StepFailed(
                f"returned {more:,} bytes, with which the run would have {held + more:,}; "
                f"HEADSTART_MAX_RUN_BYTES is {self.run:,}",
                retry=False,
                failure_reason=FailureReason.TOO_LARGE,
            )


async def encoded(
    codec: ResultCodec, step: str, value: Any, limits: Limits, *, needed: bool = True
) -> tuple[Any, bytes]:
    """Encode what a step returned: what other steps get, if it is `needed`, and the fragment.

    Other steps get what the fragment holds, as they would from a memo or on the next worker. A
    tuple in `Any` or a subclass's fields may be lost in it. Nothing that the step changes
    afterwards changes either. Raises StepFailed when the value is of another type than the step's,
    or more than one step may return.
    """
    if not isinstance(codec, ArtifactCodec):
        fragment = codec.encode(step, value)
        value = codec.decode(step, fragment) if needed else None
    elif weight(value, ON_LOOP) <= ON_LOOP:
        value, fragment = _written(codec, step, value, needed=needed)
    else:
        value, fragment = await in_own_thread(_heavy, codec, step, value, limits, needed=needed)
    if len(fragment) > limits.artifact:
        raise _too_much(f"{len(fragment):,}", limits)
    return value, fragment


def _heavy(
    codec: ArtifactCodec, step: str, value: Any, limits: Limits, *, needed: bool
) -> tuple[Any, bytes]:
    least = weight(value, limits.artifact)
    if least > limits.artifact:
        # To encode the value for its exact size could take all memory.
        raise _too_much(f"at least {least:,}", limits)
    return _written(codec, step, value, needed=needed)


def _written(codec: ArtifactCodec, step: str, value: Any, *, needed: bool) -> tuple[Any, bytes]:
    fragment = codec.encode(step, value)
    try:
        return codec.decode(step, fragment) if needed else None, fragment
    except ValueError as error:
        # For example a model whose required field is excluded: no other worker could decode it.
        reason = f"returned {type(value).__name__} that cannot be read again as it is kept"
        raise StepFailed(reason, retry=False, failure_reason=FailureReason.WRONG_TYPE) from error


def _too_much(size: str, limits: Limits) -> StepFailed:
    reason = f"returned {size} bytes; {limits.setting} is {limits.artifact:,}"
    return StepFailed(reason, retry=False, failure_reason=FailureReason.TOO_LARGE)


def weight(value: Any, enough: int) -> int:
    """No more than the bytes that this takes when encoded; not counted on beyond `enough`."""
    total = 0
    waiting = [value]
    while waiting and total <= enough:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, int | float):
            total += _FLOAT if isinstance(one, float) else 1
        elif isinstance(getattr(one, "nbytes", None), int):
            total += one.nbytes
        elif isinstance(one, Mapping):
            total += _LEAST * len(one)
            if total <= enough:
                waiting.extend(one.keys())
                waiting.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            total += len(one)
            if total <= enough:
                waiting.extend(one)
        elif isinstance(one, Enum):
            waiting.append(one.value)  # its fields lead to its class, and on to all members
        else:
            total += _LEAST
            # A model's fields or a dataclass's.
            waiting.extend(getattr(one, "__dict__", {}).values())
    return total
