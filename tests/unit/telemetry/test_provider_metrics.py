"""The figures of governed calls, through a governor whose clock is virtual."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import CallOutcome, Rates
from headstart_service.providers.governor import Governor, GovernorRules
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.providers.permit import Permit
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.providers import ProviderMetrics
from tests.support.scrape import parsed, value
from tests.support.virtual_time import loop_time, run_virtually

NAME = "anthropic/m"


def test_each_call_its_wait_and_what_it_does_to_others_is_counted() -> None:
    figures = ProviderMetrics()

    async def main() -> str:
        rules = GovernorRules(lease=60, rates=lambda: Rates(calls_a_minute=60))
        governor = Governor(NAME, "the API", LocalPermits(loop_time), rules, figures)

        async def call() -> Permit:
            return await governor.permit()

        await (await call()).settle(CallOutcome.ANSWERED, "answered")
        await (await call()).settle(CallOutcome.LOST, "cancelled")
        refused = await call()
        await refused.settle(CallOutcome.REFUSED, "rate_limited", retry_after=3.0)
        waits = asyncio.create_task(call())
        await asyncio.sleep(1)
        text = await Exposition([figures]).text()
        waits.cancel()
        await asyncio.wait({waits})
        await governor.aclose()
        return text

    told = parsed(run_virtually(main()))
    count = "headstart_provider_call_duration_seconds_count"
    for end in ("answered", "cancelled", "rate_limited"):
        assert value(told, count, provider=NAME, end=end) == 1
    assert value(told, "headstart_provider_wait_seconds_count", provider=NAME) == 3
    assert value(told, "headstart_provider_paused_seconds_total", provider=NAME) == pytest.approx(3)
    assert value(told, "headstart_provider_waiting", provider=NAME) == 1
    assert value(told, "headstart_provider_breaker_open", provider=NAME) == 0
