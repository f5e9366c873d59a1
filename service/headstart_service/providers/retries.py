"""Repeats calls of a provider, each with a permit, for as long as they are still wanted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ..domain import CallOutcome
from ..domain.errors import StepFailed
from ..worker.step_caller import CALLER
from .governor import Governor, WaitEnded
from .permit import Permit
from .provider_observer import CANCELLED, TIMEOUT

T = TypeVar("T")

_FIRST, _LONGEST = 0.5, 10.0
"""Seconds: the most that the first pause lasts, and that any does."""


class Tried(Protocol):
    """What is known of a call after a try; `MessagesRequest` satisfies it."""

    tries: int
    end: str
    """How the last try ended, as metrics name it; empty for one that was stopped."""
    retry_after: float
    """Seconds that the provider asks callers to wait; 0 if it does not."""

    @property
    def left(self) -> float:
        """Seconds in which other tries may begin."""
        ...

    @property
    def outcome(self) -> CallOutcome:
        """What the last try has shown of the provider."""
        ...

    @property
    def may_pass(self) -> bool:
        """Whether another try may succeed."""
        ...

    def begin_try(self) -> None:
        """Count a try."""
        ...


async def with_retries(
    governor: Governor,
    call: Tried,
    attempt: Callable[[Permit], Awaitable[T]],
    failure: Callable[[], StepFailed | None],
    *,
    tokens: int = 0,
    cost_of_lost: int = 0,
) -> T:
    """Return what `attempt` does; it settles its permit itself if it succeeds.

    Tries again after what may pass, with exponential backoff and full jitter, while there is time.
    After a refusal the provider's own pause takes the place of the backoff. Raises StepFailed, that
    of the last try (`failure`) where no other permit came. `tokens` is about what a try costs;
    `cost_of_lost` counts for one that was sent and not answered.
    """
    while True:
        try:
            permit = await governor.permit(tokens)
        except WaitEnded as ended:
            raise failure() or ended from None
        call.begin_try()
        try:
            return await attempt(permit)
        except BaseException as error:
            outcome = call.outcome
            refused = outcome is CallOutcome.REFUSED
            settling = permit.settle(
                outcome,
                call.end or CANCELLED,
                retry_after=call.retry_after if refused else 0.0,
                tokens=cost_of_lost if call.end in ("", TIMEOUT) else 0,
            )
            if not isinstance(error, StepFailed) or not call.may_pass:
                raise
            pause = max(call.retry_after, backoff(call.tries))
            needed_later = CALLER.get().needed_at > time.monotonic() + pause
            if pause >= call.left and not (refused and needed_later):
                raise
        # The next permit must know of this failure.
        await asyncio.shield(settling)
        if not refused:  # else the governor pauses, as all workers do
            await asyncio.sleep(pause)


def backoff(tries: int) -> float:
    """Return a random pause, whose most doubles with each try."""
    most = min(_LONGEST, _FIRST * 2 ** min(tries - 1, 10))
    return random.uniform(0, most)  # noqa: S311  # no secret
