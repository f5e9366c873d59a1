"""Governs the calls of one provider: each waits for a permit, in the order of `WaitingCalls`.

Calls of all workers share the provider's limits: `domain.Permits`. A caller waits in its worker,
which asks again after the wait that the store returned. While others are before it, its step's
clock stands still. While the provider is away or pauses, the clock goes on. That wait ends with the
step's time or, if that is later, when the run is needed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Final

from ..domain import (
    Ask,
    AskAnswer,
    CallOutcome,
    FailureReason,
    Permits,
    ProviderNews,
    Rates,
    Settlement,
    Turn,
    WaitsFor,
)
from ..domain.errors import ExecutorUnavailable, StepFailed
from ..worker.cost_meter import METER, spend
from ..worker.step_caller import CALLER, StepCaller
from ..worker.step_deadline import step_clock
from .call_waiter import Waiter
from .calls_under_way import CallsUnderWay
from .permit import Permit
from .provider_observer import CANCELLED, MEANINGS, OVER_BUDGET, ProviderObserver, Unwatched
from .waiting_calls import WaitingCalls

log = logging.getLogger(__name__)

_BATCH: Final = 16
"""Asks in one call of the store."""
_JITTER: Final = 0.25
"""Of a wait: how much longer it may be, so that workers do not ask at the same moment."""
_SHORTEST, _LONGEST = 0.005, 5.0
"""Seconds between two asks of a worker whose callers wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorRules:
    """What bounds the calls of a provider. Durations in seconds."""

    lease: float
    """How long a call takes at most: then its permit is free, even if its worker was killed."""
    patience: float = 300.0
    """How long a call may wait for its turn, unless its run is needed later than that."""
    rates: Callable[[], Rates] = Rates
    """Returns the configured limits in force."""
    budget: Callable[[str], int] = lambda _: 0
    """Returns how many tokens a namespace may use in a day; 0 for any number."""
    weight: Callable[[str], float] = lambda _: 1.0
    """Returns a namespace's share of the permits, beside other namespaces."""


class NotCalled(StepFailed):
    """The call was not made."""

    def __init__(self, reason: str, *, end: str = CANCELLED, **kwargs: Any) -> None:
        """Fail for `reason`; metrics count the call as ended by `end`, one of `ENDS`."""
        super().__init__(reason, **kwargs)
        self.end = end


class WaitEnded(NotCalled):
    """The turn of the call did not come in time."""


class Governor:
    """Governs this worker's calls of one provider."""

    def __init__(
        self,
        provider: str,
        title: str,
        permits: Permits,
        rules: GovernorRules,
        observer: ProviderObserver | None = None,
    ) -> None:
        """Govern `provider`; messages call it `title`."""
        self.provider = provider
        self._title = title
        self._permits = permits
        self._rules = rules
        self._observer = observer or Unwatched()
        self._waiting = WaitingCalls(rules.weight)
        self._numbers = count()
        self._serving: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._again = asyncio.Event()
        self._turn: Turn | None = None
        """The last answer, for as long as callers wait."""
        self._calling = CallsUnderWay()
        self._draining: set[str] | None = None
        """While the worker drains: the runs that go on, because they had a call under way."""
        self.draining = asyncio.Event()
        """Set while the worker drains."""

    @property
    def wait(self) -> float:
        """About how long a call that comes now waits for its permit, in seconds."""
        turn, waiting = self._turn, len(self._waiting)
        if turn is None or not waiting:
            return 0.0
        if not turn.waits_for.is_turn:
            return turn.wait
        if turn.waits_for is WaitsFor.CALLS and turn.rate:
            # The other workers have about as many callers.
            return waiting * turn.workers / turn.rate
        return asyncio.get_running_loop().time() - min(each.since for each in self._waiting)

    def drain(self) -> None:
        """Begin calls of those runs alone that have one under way: else it would be paid twice.

        Other runs that wait are handed on to another worker.
        """
        self._draining = self._calling.runs
        self.draining.set()
        for waiter in self._waiting:
            if not waiter.granted.done() and self._hands_on(waiter.run, waiter.paid):
                waiter.granted.set_exception(self._stops())

    def hands_on(self, run: str) -> bool:
        """Whether the worker drains, and this run has no call under way."""
        return self.draining.is_set() and run not in self._calling.runs

    def _hands_on(self, run: str, paid: bool) -> bool:  # noqa: FBT001  # of our own
        return self._draining is not None and bool(run) and not paid and run not in self._draining

    def _stops(self) -> ExecutorUnavailable:
        return ExecutorUnavailable(f"the worker stops, and begins no call of {self._title}")

    async def aclose(self) -> None:
        """Return when the last calls are noted."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        if self._settling:
            await asyncio.wait(self._settling)

    async def permit(self, tokens: int = 0) -> Permit:
        """Return a permit for a call of about so many tokens, once it is this call's turn.

        Raises StepFailed when the namespace has used up its budget, WaitEnded, and
        ExecutorUnavailable when the worker drains.
        """
        caller, meter = CALLER.get(), METER.get()
        paid = meter is not None and meter.llm_tokens > 0
        if self._hands_on(caller.run, paid):
            raise self._stops()
        ask = Ask(uuid.uuid4().hex, tokens, caller.namespace, self._rules.budget(caller.namespace))
        loop = asyncio.get_running_loop()
        began = loop.time()
        patience = max(self._rules.patience, caller.needed_at - time.monotonic())
        limit = asyncio.timeout(patience)
        waiter = Waiter(
            order=(caller.order_us, next(self._numbers)),
            ask=ask,
            run=caller.run,
            paid=paid,
            clock=step_clock(),
            since=began,
            until=began + patience,
            needed_at=caller.needed_at,
            limit=limit,
        )
        self._waiting.add(waiter)
        self._observer.waiting(self.provider, len(self._waiting))
        try:
            async with limit:
                self._wake(waiter)
                with caller.hurry.followed(partial(self._hurry, waiter, caller)):
                    return await waiter.granted
        except TimeoutError as error:
            waiter.give_back()
            if not limit.expired():
                raise
            raise self._ended(waiter, loop.time() - began) from error
        except asyncio.CancelledError:
            waiter.give_back()
            raise
        finally:
            self._forget(waiter)
            waiter.go()
            waited = loop.time() - began
            self._observer.waited(self.provider, waited)
            spend(waited=waited)

    def settled(self, run: str, settled: Settlement, seconds: float) -> asyncio.Future[None]:
        """Note the end of a call of a run; a `Permit` calls this."""
        self._calling.ended(run)
        if settled.outcome is not CallOutcome.UNUSED:
            self._observer.called(self.provider, settled.ending, seconds)
        return self._begin_settling(settled)

    def charge(self, namespace: str, tokens: int, cached_tokens: int) -> None:
        """Count tokens in a namespace's budget that were paid without a permit."""
        settled = Settlement(
            lease=uuid.uuid4().hex,
            outcome=CallOutcome.CHARGED,
            namespace=namespace,
            tokens=tokens,
            cached_tokens=cached_tokens,
        )
        self._begin_settling(settled)

    def _begin_settling(self, settled: Settlement) -> asyncio.Task[None]:
        task = asyncio.create_task(self._settle(settled), name=f"settle {self.provider}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, settled: Settlement) -> None:
        try:
            news = await self._permits.settle(self.provider, settled, self._rules.rates())
        except Exception:
            log.exception("%s: the end of a call is not noted", self.provider)
            return
        self._log_news(news)
        turn = self._turn
        if turn and (turn.waits_for is WaitsFor.CONCURRENCY or news.event == "closed"):
            self._again.set()

    def _log_news(self, news: ProviderNews) -> None:
        """Log what has changed, and count it."""
        why = MEANINGS.get(news.ending, news.ending)
        match news.event:
            case "paused":
                self._observer.paused(self.provider, news.paused)
                log.warning(
                    "%s: calls of all workers pause for %.1f s: it %s",
                    *(self.provider, news.paused, why),
                )
            case "opened":
                log.warning(
                    "%s: the circuit breaker is open, for the %d. time in a row: it %s",
                    *(self.provider, news.opened, why),
                )
            case "closed":
                log.info("%s: answers again, the circuit breaker is closed", self.provider)
        self._observer.state(self.provider, news.opened)

    def _wake(self, waiter: Waiter) -> None:
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(), name=f"permits {self.provider}")
            return
        if waiter.ask.budget or self._turn is None:
            self._again.set()
        if self._turn is not None:
            self._note(waiter, self._turn)

    def _hurry(self, waiter: Waiter, caller: StepCaller) -> None:
        """Give a call the place of one that is needed at once."""
        if waiter.granted.done() or waiter.is_at_once(caller.order_us):
            return
        self._waiting.remove(waiter)
        waiter.hurry(caller.order_us, asyncio.get_running_loop().time() + self._rules.patience)
        self._waiting.add(waiter)
        self._wake(waiter)
        self._again.set()

    def _forget(self, waiter: Waiter) -> None:
        self._waiting.remove(waiter)
        self._observer.waiting(self.provider, len(self._waiting))

    async def _serve(self) -> None:
        """Ask for permits until no call waits."""
        try:
            while self._waiting:
                self._again.clear()
                pause = await self._ask()
                if pause > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._again.wait()
        except Exception as error:
            log.exception("%s: no permits", self.provider)
            for waiter in self._waiting:
                if not waiter.granted.done():
                    waiter.granted.set_exception(error)
        finally:
            self._serving = self._turn = None

    async def _ask(self) -> float:
        """Ask once. Returns the seconds until the next time, 0 for at once."""
        batch = self._waiting.first(_BATCH)
        if not batch:
            # All of these have been answered; they leave the list in this turn of the loop.
            await asyncio.sleep(0)
            return 0.0
        asks = [self._present(each) for each in batch]
        turn = await self._permits.take(self.provider, asks, self._rules.rates(), self._rules.lease)
        self._observer.state(self.provider, turn.opened)
        for waiter, answer in zip(batch, turn.answers, strict=True):
            self._answer(waiter, answer, turn)
        if turn.waits_for is WaitsFor.NOTHING:
            self._turn = None
            return 0.0
        before, self._turn = self._turn, turn
        # Those who wait for their turn have noted it; there may be thousands.
        if before is None or not (before.waits_for.is_turn and turn.waits_for.is_turn):
            for waiter in self._waiting:
                self._note(waiter, turn)
        pause = turn.wait * random.uniform(1, 1 + _JITTER)  # noqa: S311  # no secret
        return min(_LONGEST, max(_SHORTEST, pause))

    def _present(self, waiter: Waiter) -> Ask:
        """Return what a waiter asks for, within the budget that is in force now."""
        budget = self._rules.budget(waiter.ask.namespace)
        if budget != waiter.ask.budget:
            waiter.ask = replace(waiter.ask, budget=budget)
        return waiter.ask

    def _answer(self, waiter: Waiter, answer: AskAnswer, turn: Turn) -> None:
        if answer.granted:
            self._waiting.charge(waiter)
            self._calling.began(waiter.run)
            permit = Permit(self, waiter.ask, turn.granted_us, waiter.run)
            if waiter.granted.done():
                permit.settle(CallOutcome.UNUSED, "")
            else:
                waiter.granted.set_result(permit)
        elif answer is AskAnswer.OVER_BUDGET:
            # Others of the namespace may stand far behind: they would wait for the same answer.
            for each in self._waiting.of(waiter.ask.namespace):
                self._refuse(each, waiter.ask.budget)

    def _refuse(self, waiter: Waiter, budget: int) -> None:
        """End the wait of a call whose namespace has used up its budget."""
        if waiter.granted.done():
            return
        self._observer.over_budget(self.provider)
        waiter.granted.set_exception(
            NotCalled(
                f"namespace {waiter.ask.namespace} has used up its budget of {budget} tokens of "
                "language models for today, until midnight UTC",
                end=OVER_BUDGET,
                retry=False,
                failure_reason=FailureReason.OVER_BUDGET,
            )
        )

    def _note(self, waiter: Waiter, turn: Turn) -> None:
        """Let the waiter's step know what it waits for."""
        if waiter.granted.done() or waiter.limit.expired():
            return
        if turn.waits_for.is_turn:
            waiter.trouble = None
            waiter.stop()
            waiter.limit.reschedule(waiter.until)
            return
        waiter.trouble = turn
        if waiter.clock is None:
            return
        left = waiter.clock.left
        spare = waiter.needed_at - time.monotonic() if waiter.needed_at else 0.0
        # A run that is needed later than its step's time ends may wait until then.
        if spare > left:
            waiter.stop()
            left = spare
        else:
            waiter.go()
        if turn.wait >= left:
            waiter.granted.set_exception(self._ended(waiter, 0.0))
            return
        waiter.limit.reschedule(min(waiter.until, asyncio.get_running_loop().time() + left))

    def _ended(self, waiter: Waiter, waited: float) -> WaitEnded:
        """Return why a waiter gets no permit, after so many seconds."""
        turn = waiter.trouble
        if turn is None:
            return WaitEnded(
                f"waited {round(waited, 1):g} s for its turn at {self._title}",
                failure_reason=FailureReason.QUEUE_TIMED_OUT,
            )
        why = MEANINGS.get(turn.ending, turn.ending)
        how = f"calls pause for {turn.wait:.0f} s"
        if turn.waits_for is WaitsFor.BREAKER:
            how = "calls have failed in a row"
        return WaitEnded(
            f"{self._title} {why}: {how}",
            end=turn.ending or CANCELLED,
            retry=False,
            failure_reason=FailureReason.DEPENDENCY_AWAY,
        )
