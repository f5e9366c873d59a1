"""Figures of the calls that a worker makes to governed providers.

Satisfies `providers.provider_observer.ProviderObserver`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .instruments import Instruments

_LABELS = ("provider",)


class ProviderMetrics(Instruments):
    """Counts and times calls, and what they wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = self.histogram(
            "provider_call_duration_seconds",
            "Time of a call to a provider, each try by itself, by its end: those of "
            "`llm_request_duration_seconds`.",
            ("provider", "end"),
        )
        self._waits = self.histogram(
            "provider_wait_seconds",
            "Time that a call has waited for its permit, or until it gave up.",
            _LABELS,
        )
        self._paused = self.counter(
            "provider_paused_seconds_total",
            "Time for which refusals that this worker received made all workers pause.",
            _LABELS,
        )
        self._over = self.counter(
            "provider_over_budget_total",
            "Calls that were not made because their namespace has used up its tokens of the day.",
            _LABELS,
        )
        self._waiting: dict[tuple[str, ...], float] = {}
        self._open: dict[tuple[str, ...], float] = {}
        self.reading(
            "provider_waiting", "Calls that wait for a permit now.", lambda: self._waiting, _LABELS
        )
        self.reading(
            "provider_breaker_open",
            "1 while the circuit breaker of a provider is open: its calls have failed in a row.",
            lambda: self._open,
            _LABELS,
        )
        self._health: Callable[[], Mapping[str, bool]] = dict
        self.reading(
            "provider_healthy",
            "1 while a provider of an author's is healthy.",
            lambda: {(name,): int(well) for name, well in self._health().items()},
            _LABELS,
        )

    def watch_health(self, health: Callable[[], Mapping[str, bool]]) -> None:
        """Show whether each provider of an author's is healthy, as `health` returns it."""
        self._health = health

    def called(self, provider: str, end: str, seconds: float) -> None:
        """Count a call."""
        self._calls.of(provider, end).note(seconds)

    def waiting(self, provider: str, callers: int) -> None:
        """Show how many calls wait."""
        self._waiting[(provider,)] = callers

    def waited(self, provider: str, seconds: float) -> None:
        """Count a wait."""
        self._waits.of(provider).note(seconds)

    def paused(self, provider: str, seconds: float) -> None:
        """Add a pause."""
        self._paused.add(provider, by=seconds)

    def state(self, provider: str, opened: int) -> None:
        """Show the breaker."""
        self._open[(provider,)] = int(opened > 0)

    def over_budget(self, provider: str) -> None:
        """Count a call that was not made."""
        self._over.add(provider)
