"""Permits to call a provider, which all workers of a store share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Rates:
    """The configured limits of one provider, for all workers together; None for no limit."""

    calls_a_minute: int | None = None
    tokens_a_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A caller asks for a permit."""

    lease: str
    """Unique: the name of the permit."""
    tokens: int
    """About how many tokens its call will take."""
    namespace: str
    budget: int = 0
    """How many tokens its namespace may use in a day; 0 for any number."""


class AskAnswer(StrEnum):
    """What becomes of an ask. The values are those of take_permits.lua."""

    GRANTED = "g"
    PROBE = "p"
    """Granted alone, to find out whether the provider answers again."""
    OVER_BUDGET = "b"
    WAIT = "w"

    @property
    def granted(self) -> bool:
        """Whether there is a permit."""
        return self in (AskAnswer.GRANTED, AskAnswer.PROBE)


class WaitsFor(StrEnum):
    """What callers without a permit wait for."""

    NOTHING = ""
    PAUSE = "paused"
    """The provider has refused calls; all workers leave it alone for a while."""
    BREAKER = "open"
    """Calls have failed in a row; one at a time finds out whether it answers again."""
    CALLS = "calls"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"

    @property
    def is_turn(self) -> bool:
        """Whether the provider works, and others are before this caller."""
        return self in (WaitsFor.CALLS, WaitsFor.TOKENS, WaitsFor.CONCURRENCY)


class CallOutcome(StrEnum):
    """What a call has shown of its provider. The values are those of settle_permit.lua."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"
    """It was cancelled, so nothing is known."""
    UNUSED = "unused"
    """There was no call."""
    CHARGED = "charged"
    """There was no permit: tokens are paid that no limit but the budget counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was granted. Durations in seconds."""

    answers: Sequence[AskAnswer]
    """One for each ask."""
    wait: float = 0.0
    """How long the first ask that waits should, before it asks again."""
    waits_for: WaitsFor = WaitsFor.NOTHING
    ending: str = ""
    """How the last bad call ended."""
    granted_us: int = 0
    """When, by the clock of the store, or of the worker if it grants."""
    rate: float = 0.0
    """Calls a second that all workers may make now."""
    workers: int = 1
    """How many have asked lately."""
    paused: float = 0.0
    """How long the pause goes on."""
    opened: int = 0
    """How often the breaker has opened in a row; 0 while it is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a call ended. Durations in seconds."""

    lease: str
    outcome: CallOutcome
    ending: str = ""
    """As metrics name it."""
    namespace: str = ""
    granted_us: int = 0
    retry_after: float = 0.0
    """How long the provider asks callers to wait; 0 if it does not."""
    estimate: int = 0
    tokens: int = 0
    """What the call has cost, as far as is known: what budgets and limits count."""
    cached_tokens: int = 0
    """Tokens that the provider read from its prompt cache."""


@dataclass(frozen=True, slots=True)
class ProviderNews:
    """What is known after a call. Durations in seconds."""

    paused: float
    opened: int
    event: str = ""
    """What the call has changed: `paused`, `opened`, `closed` or nothing."""
    ending: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """What all workers know of a provider."""

    name: str
    paused: float = 0.0
    """Seconds for which calls of all workers pause."""
    opened: int = 0
    """How often the breaker has opened in a row; 0 while it is closed."""
    ending: str = ""
    """How the last bad call ended, as metrics name it."""
    waits_for: WaitsFor = WaitsFor.NOTHING
    """What callers waited for in the last seconds."""
    rate: float = 0.0
    """Calls a second that its refusals allow; 0 without any."""


class Permits(Protocol):
    """Grants permits, for one worker or for all. Both methods may raise StoreUnavailable."""

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        """Answer each ask; a permit ends by itself after `lease` seconds."""
        ...

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        """Free a permit, and note what its call has shown."""
        ...
