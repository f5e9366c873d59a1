"""What `headstart doctor` finds of providers and budgets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.commands.doctor.providers import provider_checks

FAILING = pb.ProviderStatus(name="a/m", failing=True, last_error="timeout")
REFUSING = pb.ProviderStatus(name="a/m", last_error="rate_limited")
REFUSING.paused.FromTimedelta(timedelta(seconds=9))
LIMITED = pb.ProviderStatus(name="a/m", waits_for=pb.PROVIDER_LIMIT_CALLS, calls_a_second=2.5)


@pytest.mark.parametrize(
    ("provider", "verdict", "found"),
    [
        (pb.ProviderStatus(name="a/m", last_error="timeout"), "OK", "a/m answers"),
        (FAILING, "WARN", "a/m fails, last by timeout: the circuit breaker is open"),
        (REFUSING, "WARN", "a/m refuses calls, last by rate_limited: all workers pause"),
        (LIMITED, "WARN", "a/m: calls wait for their turn within calls_a_minute, 2.5 a second"),
    ],
)
def test_each_state_of_a_provider_is_named(
    provider: pb.ProviderStatus, verdict: str, found: str
) -> None:
    (check,) = provider_checks(pb.GetStatsResponse(providers=[provider]))
    assert (check.name, check.verdict.value) == ("provider", verdict)
    assert check.found.startswith(found)
    assert bool(check.advice) == (verdict != "OK")


def test_namespaces_over_their_budgets_are_named_with_them() -> None:
    checks = list(provider_checks(pb.GetStatsResponse(over_budget={"shop": 5000, "quiz": 7})))
    assert [(check.name, check.verdict.value) for check in checks] == [("budget", "WARN")] * 2
    assert "namespace quiz has used up its 7 tokens" in checks[0].found
    assert "namespace shop has used up its 5,000 tokens" in checks[1].found
