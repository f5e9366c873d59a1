"""Permits of one worker alone: for a store that is away, and where there is no store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..domain import (
    Ask,
    AskAnswer,
    CallOutcome,
    Permits,
    ProviderNews,
    Rates,
    Settlement,
    Turn,
    WaitsFor,
)
from ..domain.errors import CapacityExhausted, StoreUnavailable

_START: Final = 20.0
"""Calls a second of all workers, while nothing else is known."""
_BURST: Final = 10.0
_LEAST: Final = 0.1
_OPENS_AT: Final = 5
"""Calls that fail in a row until the breaker opens."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 300.0
_FIRST_COOLDOWN, _LONGEST_COOLDOWN = 1.0, 30.0
_POLL: Final = 0.25
_GROWTH: Final = 0.05
"""Calls a second that each answer adds to the rate after a refusal."""


@dataclass(slots=True)
class _State:
    """What one provider has shown. Times are of the clock, in seconds."""

    rate: float
    level: float
    at: float
    tokens: float = 0.0
    cut_at: float = -1.0
    learned_at: float = 0.0
    """When the store answered last: calls that it granted began before."""
    refusals: int = 0
    failures: int = 0
    pause: float = 0.0
    opened: int = 0
    probe_at: float = 0.0
    probe: str = ""
    ending: str = ""
    under_way: dict[str, float] = field(default_factory=dict)
    """Each permit with its end."""


class LocalPermits:
    """Grants the share of one worker. Satisfies `domain.Permits`; never raises.

    Simpler than what Redis does for all: the rate is halved at a refusal, and grows by each answer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing of any provider yet."""
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._workers = 1

    def learn(self, provider: str, turn: Turn) -> None:
        """Note what all workers know, so as to go on with a share of it."""
        self._workers = max(1, turn.workers)
        state = self._state(provider, Rates())
        state.rate = max(_LEAST, turn.rate / self._workers)
        state.learned_at = self._clock()
        state.opened = turn.opened
        state.pause = self._clock() + turn.paused

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        """Answer each ask."""
        now = self._clock()
        state = self._state(provider, rates)
        rate = self._fill(state, rates, now)
        for late in [each for each, end in state.under_way.items() if end <= now]:
            del state.under_way[late]
        answers = []
        wait, waits_for = 0.0, WaitsFor.NOTHING
        for ask in asks:
            if waits_for is WaitsFor.NOTHING:
                wait, waits_for = self._obstacle(state, rates, rate, now)
            if waits_for is not WaitsFor.NOTHING:
                answers.append(AskAnswer.WAIT)
                continue
            answers.append(AskAnswer.PROBE if state.opened else AskAnswer.GRANTED)
            if state.opened:
                state.probe, state.probe_at = ask.lease, now + lease
            state.level -= 1
            state.tokens -= ask.tokens
            state.under_way[ask.lease] = now + lease
        return Turn(
            answers=answers,
            wait=wait,
            waits_for=waits_for,
            ending=state.ending,
            granted_us=round(now * 1e6),
            rate=rate * self._workers,
            workers=self._workers,
            paused=max(0.0, state.pause - now),
            opened=state.opened,
        )

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        """Free a permit, and note what its call has shown."""
        now = self._clock()
        state = self._state(provider, rates)
        own = state.under_way.pop(settled.lease, None) is not None
        if settled.outcome is not CallOutcome.CHARGED:
            state.tokens += settled.estimate - settled.tokens
        anew = (settled.granted_us / 1e6 if own else state.learned_at) > state.cut_at
        match settled.outcome:
            case CallOutcome.ANSWERED:
                event = self._answered(state, anew=anew)
            case CallOutcome.REFUSED | CallOutcome.FAILED:
                event = self._failed(state, settled, now, anew=anew)
            case _:
                event = ""
                state.level += settled.outcome is CallOutcome.UNUSED
                if state.probe == settled.lease:
                    state.probe, state.probe_at = "", now
        return ProviderNews(max(0.0, state.pause - now), state.opened, event, state.ending)

    def _answered(self, state: _State, *, anew: bool) -> str:
        state.failures = 0
        if anew:
            state.refusals = 0
        if state.cut_at >= 0:
            state.rate += _GROWTH
        if not state.opened:
            return ""
        state.opened, state.level = 0, 0.0
        return "closed"

    def _failed(self, state: _State, settled: Settlement, now: float, *, anew: bool) -> str:
        event = ""
        state.ending = settled.ending
        if settled.outcome is CallOutcome.REFUSED:
            event = self._refused(state, settled.retry_after, now, anew=anew)
        if anew or settled.outcome is CallOutcome.FAILED:
            state.failures += 1
        probing = state.probe == settled.lease
        if not probing and (state.opened or state.failures < _OPENS_AT):
            return event
        state.opened += 1
        cooldown = _FIRST_COOLDOWN * 2 ** min(state.opened - 1, 9)
        state.probe, state.probe_at = "", now + min(_LONGEST_COOLDOWN, cooldown)
        return "opened"

    def _refused(self, state: _State, retry_after: float, now: float, *, anew: bool) -> str:
        if anew:
            state.refusals += 1
            state.rate = max(_LEAST, state.rate / 2)
            state.level, state.cut_at = 0.0, now
        pause = max(retry_after, _FIRST_PAUSE * 2 ** min(max(state.refusals - 1, 0), 7))
        until = now + min(_LONGEST_PAUSE, pause)
        if until <= state.pause:
            return ""
        state.pause = until
        return "paused"

    def _state(self, provider: str, rates: Rates) -> _State:
        state = self._states.get(provider)
        if state is None:
            start = rates.calls_a_minute / 60 if rates.calls_a_minute else _START
            rate = start / self._workers
            state = _State(rate, min(_BURST, max(1.0, rate)), self._clock())
            state.tokens = self._tokens_a_second(rates) * 10
            self._states[provider] = state
        return state

    def _tokens_a_second(self, rates: Rates) -> float:
        return (rates.tokens_a_minute or 0) / 60 / self._workers

    def _fill(self, state: _State, rates: Rates, now: float) -> float:
        """Fill the buckets for the time that has passed. Returns calls a second."""
        rate = state.rate
        if rates.calls_a_minute:
            rate = min(rate, rates.calls_a_minute / 60 / self._workers)
        burst = max(1.0, min(_BURST, rate if state.cut_at < 0 else rate / 5))
        state.level = min(burst, state.level + max(0.0, now - max(state.at, state.pause)) * rate)
        tokens = self._tokens_a_second(rates)
        state.tokens = min(tokens * 10, state.tokens + (now - state.at) * tokens) if tokens else 0.0
        state.at = now
        return rate

    def _obstacle(
        self, state: _State, rates: Rates, rate: float, now: float
    ) -> tuple[float, WaitsFor]:
        """What the next caller waits for, and how long."""
        if now < state.pause:
            return state.pause - now, WaitsFor.PAUSE
        if state.opened:
            wait = max(0.0, state.probe_at - now)
            return min(1.0, wait) if state.probe else wait, (
                WaitsFor.BREAKER if wait else WaitsFor.NOTHING
            )
        if state.level < 1:
            return (1 - state.level) / rate, WaitsFor.CALLS
        if rates.tokens_a_minute and state.tokens <= 0:
            return (1 - state.tokens) / self._tokens_a_second(rates), WaitsFor.TOKENS
        share = rates.concurrency and max(1, rates.concurrency // self._workers)
        if share and len(state.under_way) >= share:
            return _POLL, WaitsFor.CONCURRENCY
        return 0.0, WaitsFor.NOTHING


class SharedPermits:
    """Asks the store that all workers share; while it is away, grants this worker's share."""

    def __init__(self, shared: Permits, own: LocalPermits | None = None) -> None:
        """Ask `shared` first."""
        self._shared = shared
        self._own = own or LocalPermits()

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        """Answer each ask."""
        try:
            turn = await self._shared.take(provider, asks, rates, lease)
        except (StoreUnavailable, CapacityExhausted):
            return await self._own.take(provider, asks, rates, lease)
        self._own.learn(provider, turn)
        return turn

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        """Free a permit, and note what its call has shown."""
        try:
            return await self._shared.settle(provider, settled, rates)
        except (StoreUnavailable, CapacityExhausted):
            return await self._own.settle(provider, settled, rates)
