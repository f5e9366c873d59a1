"""What the server knows of the providers that steps call, and of budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain.causes import Facts, causes, provider_cause
from ...domain.permits import ProviderState, WaitsFor
from .report import Check, ok, warn

_LIMITS: Final = {
    pb.PROVIDER_LIMIT_CALLS: WaitsFor.CALLS,
    pb.PROVIDER_LIMIT_TOKENS: WaitsFor.TOKENS,
    pb.PROVIDER_LIMIT_CONCURRENCY: WaitsFor.CONCURRENCY,
}


def provider_checks(stats: pb.GetStatsResponse) -> Iterator[Check]:
    """Yield a check of each provider that steps called lately, and of each budget used up."""
    for provider in stats.providers:
        cause = provider_cause(_state(provider))
        if cause is None:
            yield ok("provider", f"{provider.name} answers")
        else:
            yield warn(cause.name, cause.found, cause.advice)
    for cause in causes(Facts(over_budget=dict(stats.over_budget))):
        yield warn(cause.name, cause.found, cause.advice)


def _state(provider: pb.ProviderStatus) -> ProviderState:
    return ProviderState(
        name=provider.name,
        paused=provider.paused.ToTimedelta().total_seconds(),
        opened=int(provider.failing),
        ending=provider.last_error,
        # A newer server may name another limit.
        waits_for=_LIMITS.get(provider.waits_for, WaitsFor.NOTHING),
        rate=provider.calls_a_second,
    )
