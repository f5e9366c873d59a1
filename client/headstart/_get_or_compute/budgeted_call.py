"""Makes calls whose callers wait no longer than a budget: one rule for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from headstart._errors import DeadlineExceeded, HeadstartError, InvalidRequest, NotFound
from headstart._get_or_compute.circuit_breaker import Breaker
from headstart._get_or_compute.durations import Durations
from headstart._get_or_compute.outage_log import OutageLog
from headstart._messages import arguments

# In seconds: how long an answer may take while a user waits.
BUDGET: Final = 0.025
# In seconds: how long background calls may still take when the client is closed.
_LAST_CALLS: Final = 0.5
# In seconds, the longest budget or deadline: a day.
_LONGEST: Final = 86_400.0


@dataclass(slots=True)
class Experience:
    """Holds what a client has learnt from earlier calls, shared by all of them."""

    breaker: Breaker = field(default_factory=Breaker)
    durations: Durations = field(default_factory=Durations)
    outage: OutageLog = field(default_factory=OutageLog)
    left_out: set[tuple[str, str]] = field(default_factory=set)
    """Pipelines and steps of theirs that some run was seen to leave out."""


class BudgetedCall:
    """Makes one call, which the circuit breaker may leave out and whose answer may be late.

    A call that fails or exceeds its budget counts as a failure, unless its late answer is of use
    after all. After three failures in a row the breaker lets no call pass for a while.
    """

    def __init__(
        self,
        experience: Experience,
        name: str,
        *,
        of_this_call: tuple[type[HeadstartError], ...] = (),
        raises_refusal: bool = False,
    ) -> None:
        """Prepare.

        Args:
            experience: The client's.
            name: The caller's method, for the log.
            of_this_call: Errors that are no reason to spare the service other calls.
            raises_refusal: The caller raises `refused`, so the log need not have it.
        """
        self._known = experience
        self._name = name
        self._of_this_call = of_this_call
        self._raises_refusal = raises_refusal
        self.late = False
        """Whether the budget ended before the answer came."""
        self.why = ""
        """Why there is no answer; empty if there is one."""
        self.refused: InvalidRequest | None = None
        """The error of a request that the service refused in time."""

    async def within(
        self, budget: float, call: Callable[[], Awaitable[bool]]
    ) -> asyncio.Task[None] | None:
        """Make the call, and wait for at most `budget` seconds.

        `call` returns whether its answer, should it be late, is of use. HeadstartError ends up in
        `why`; anything else is raised.

        Returns:
            The call, if it is still under way; else None.
        """
        if not self._known.breaker.admits():
            self.why = "the service was not asked: it lately did not answer in time"
            return None
        asking = asyncio.create_task(self._settled(call), name=self._name)
        try:
            done, _ = await asyncio.wait({asking}, timeout=max(0.0, budget))
        except asyncio.CancelledError:
            await stop([asking])
            raise
        if done:
            asking.result()  # other errors are mistakes of the caller
            return None
        self.late = True
        self._known.breaker.failed()
        self.why = f"the service did not answer within {budget * 1000:g} ms"
        self._known.outage.failed(self._name, DeadlineExceeded(self.why))
        return asking

    async def _settled(self, call: Callable[[], Awaitable[bool]]) -> None:
        breaker, outage = self._known.breaker, self._known.outage
        try:
            of_use = await call()
        except NotFound:
            self.why = "nothing was started under this key"
            breaker.answered()
            outage.answered(self._name)
        except InvalidRequest as exc:
            self.why = f"the service refused the request: {exc}"
            self.refused = exc
            breaker.answered()
            if self.late or not self._raises_refusal:
                outage.failed(self._name, exc)
        except HeadstartError as exc:
            self.why = f"the service failed: {type(exc).__name__}: {exc}"
            if not self.late and not isinstance(exc, self._of_this_call):
                breaker.failed()
            outage.failed(self._name, exc)
        else:
            outage.answered(self._name)
            # A late answer counts as a success if it was still of use.
            if of_use or not self.late:
                breaker.answered()


def check_seconds(name: str, value: float | timedelta) -> float:
    """Return a time that a caller may wait, in seconds: more than 0, a day at most.

    Raises ValueError for another one, TypeError for what is no time.
    """
    seconds = arguments.seconds(name, value)
    # Written so that NaN, which compares false with everything, is refused too.
    if not 0 < seconds <= _LONGEST:
        message = f"{name} must be more than 0 and at most {_LONGEST:g} s, not {seconds}"
        raise ValueError(message)
    return seconds


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their ends, whatever they raise then."""
    stopped = list(tasks)
    for task in stopped:
        task.cancel()
    if stopped:
        await asyncio.gather(*stopped, return_exceptions=True)


async def end_last(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Give background tasks half a second to end, then cancel them."""
    if last := set(tasks):
        _, late = await asyncio.wait(last, timeout=_LAST_CALLS)
        await stop(late)
