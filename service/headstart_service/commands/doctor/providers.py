"""What the server knows of the providers that steps call, and of budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from .report import Check, ok, warn

_LIMITS: Final = {
    "calls": "calls_a_minute",
    "tokens": "tokens_a_minute",
    "concurrency": "concurrency",
}
"""What calls wait for, and the limit's name in the file of limits."""


def provider_checks(stats: pb.GetStatsResponse) -> Iterator[Check]:
    """Yield a check of each provider that steps called lately, and of each budget used up."""
    for provider in stats.providers:
        yield _judged(provider)
    for namespace, budget in sorted(stats.over_budget.items()):
        yield warn(
            "budget",
            f"namespace {namespace} has used up its {budget:,} tokens of today: its steps that "
            "call a language model fail until midnight UTC",
            "is it meant? Else raise its llm_tokens_a_day in the file of HEADSTART_LIMITS",
        )


def _judged(provider: pb.ProviderStatus) -> Check:
    name = provider.name
    last = f", last by {provider.last_error}" if provider.last_error else ""
    if provider.failing:
        return warn(
            "provider",
            f"{name} fails{last}: the circuit breaker is open, one call at a time tries it",
            "see the provider's status page, its key, and the network; calls go on by themselves",
        )
    if provider.HasField("paused"):
        seconds = provider.paused.ToTimedelta().total_seconds()
        return warn(
            "provider",
            f"{name} refuses calls{last}: all workers pause, for another {seconds:.1f} s",
            "set its calls_a_minute in the file of HEADSTART_LIMITS to what the provider grants",
        )
    if provider.waits_for:
        limit = _LIMITS.get(provider.waits_for, provider.waits_for)
        rate = f", {provider.calls_a_second:.1f} a second" if provider.calls_a_second else ""
        return warn(
            "provider",
            f"{name}: calls wait for their turn within {limit}{rate}",
            "fewer starts, or a higher limit, if the provider grants it: HEADSTART_LIMITS",
        )
    return ok("provider", f"{name} answers")
