"""Permits to call a provider, kept in Redis for all workers. Satisfies `domain.Permits`.

They are in the first partition: a provider is no part of any run.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..domain import (
    Ask,
    AskAnswer,
    ProviderNews,
    Rates,
    Settlement,
    Turn,
    WaitsFor,
)
from .connect import Client
from .keys import encoded
from .provider_scripts import ProviderScripts
from .store_observer import StoreObserver
from .store_rules import StoreRules
from .worker_batches import worker_batches

BUDGET = 0.25
"""Seconds for one reply: then the worker goes on with its own share."""


class RedisPermits:
    """Grants permits to one of the workers that share a store."""

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        worker: str,
        *,
        budget: float = BUDGET,
        observer: StoreObserver | None = None,
    ) -> None:
        """Ask as `worker`; give up on Redis after `budget` seconds."""
        self._batches = worker_batches(client, rules, budget=budget, observer=observer)
        self._scripts = ProviderScripts(self._batches)
        self._keys = rules.keys(client)[0]
        self._worker = worker

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        """Answer each ask. Raises StoreUnavailable."""
        keys = self._keys
        state = keys.provider(provider)
        arguments: list[str | int] = []
        for ask in asks:
            arguments += (ask.lease, ask.tokens, encoded(ask.namespace), ask.budget)
        reply = await self._scripts.take_permits(
            keys,
            None,
            *arguments,
            name=provider,
            state=state,
            under_way=f"{state}:calls",
            askers=f"{state}:askers",
            turns=f"{state}:turns",
            index=keys.providers,
            budgets=keys.budget_prefix,
            over=keys.over_budget,
            worker=self._worker,
            lease_us=round(lease * 1e6),
            calls=rates.calls_a_minute or 0,
            tokens=rates.tokens_a_minute or 0,
            concurrency=rates.concurrency or 0,
        )
        answers, wait, why, now, rate, workers, paused, opened = reply
        waits_for, _, ending = why.decode().partition(":")
        return Turn(
            answers=[AskAnswer(letter) for letter in answers.decode()],
            wait=int(wait) / 1e6,
            waits_for=WaitsFor(waits_for),
            ending=ending,
            granted_us=int(now),
            rate=int(rate) / 1e3,
            workers=workers,
            paused=int(paused) / 1e6,
            opened=int(opened),
        )

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        """Free a permit, and note what its call has shown. Raises StoreUnavailable."""
        state = self._keys.provider(provider)
        paused, opened, event, ending = await self._scripts.settle_permit(
            self._keys,
            None,
            state=state,
            under_way=f"{state}:calls",
            budgets=self._keys.budget_prefix,
            lease=settled.lease,
            outcome=settled.outcome,
            ending=settled.ending,
            namespace=encoded(settled.namespace),
            granted=settled.granted_us,
            retry_us=round(settled.retry_after * 1e6),
            estimate=settled.estimate,
            used=settled.tokens,
            cached=settled.cached_tokens,
            calls=rates.calls_a_minute or 0,
        )
        return ProviderNews(int(paused) / 1e6, int(opened), event.decode(), ending.decode())
