"""Makes the governors of a worker's providers, with the limits that are in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from ..config.limits_file import LimitsFile
from ..domain import Permits, Rates
from ..pipeline.identity import printable
from ..providers.governor import Governor, GovernorRules
from ..providers.provider_observer import ProviderObserver

_LEASE = 60.0
"""Seconds until the permit of a call is free whose worker was killed: a call takes less."""


class Governors:
    """All governors of a worker."""

    def __init__(
        self, permits: Permits, limits: LimitsFile, patience: float, observer: ProviderObserver
    ) -> None:
        """Grant by `permits` within `limits`; a call waits `patience` seconds for its turn."""
        self._permits = permits
        self._limits = limits
        self._patience = patience
        self._observer = observer
        self._made: dict[str, Governor] = {}

    def of_model(self, keys: Iterable[str], provider: str, model: str, title: str) -> Governor:
        """Return a new governor of a provider's model, which messages call `title`.

        The worker has the model by these `keys`: see Pipeline.provider_key.
        """
        rules = GovernorRules(
            lease=_LEASE,
            patience=self._patience,
            rates=partial(self._rates, provider, model),
            budget=self._budget,
            weight=self._weight,
        )
        name = f"{provider}/{printable(model)}"
        governor = Governor(name, title, self._permits, rules, self._observer)
        self._made |= dict.fromkeys(keys, governor)
        return governor

    def drain(self) -> None:
        """Let calls under way end; hand on the runs that have none to other workers."""
        for governor in self._made.values():
            governor.drain()

    def waits(self) -> Mapping[str, float]:
        """Return about how long a call of each waits now, in seconds, by the provider's key."""
        return {key: governor.wait for key, governor in self._made.items()}

    def _rates(self, provider: str, model: str) -> Rates:
        limits = self._limits.table.of_provider(provider, model)
        return Rates(limits.calls_a_minute, limits.tokens_a_minute, limits.concurrency)

    def _budget(self, namespace: str) -> int:
        return self._limits.table.of_namespace(namespace).llm_tokens_a_day or 0

    def _weight(self, namespace: str) -> float:
        return self._limits.table.of_namespace(namespace).weight
