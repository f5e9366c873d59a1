"""Models of several workers that put calls into the batches of one local API.

one, two = await sides(), await sides()      # the fixture of tests/integration/conftest.py
asking = one.asks()                          # as the step of a run
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headstart import PrecomputeClient
from headstart_service.domain import ProviderNews, Rates, Settlement
from headstart_service.domain.errors import ExecutorUnavailable
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.providers.batch_rules import BatchRules
from headstart_service.providers.governor import Governor, GovernorRules
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.store.message_batches import RedisMessageBatches
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.work import ModelMetrics
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.occupancy import OCCUPANCY, Occupancy
from headstart_service.worker.step_caller import CALLER, StepCaller
from headstart_service.worker.step_deadline import StepClock, end_in, step_clock
from headstart_service.worker.step_try import StepTry, begin_try
from tests.support import processes
from tests.support.batches_api import BatchesApi
from tests.support.provider_pipelines import WAITING
from tests.support.scrape import parsed, value
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

RULES = BatchRules(least=60.0, margin=10.0, first=0.02, longest=0.1, grace=0.1)
FAR = 3600.0


class Charging(LocalPermits):
    """Notes what budgets count."""

    def __init__(self) -> None:
        super().__init__()
        self.charged: list[int] = []

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        if settled.tokens:
            self.charged.append(settled.tokens)
        return await super().settle(provider, settled, rates)


class Side:
    """One worker's model, and what it has counted."""

    def __init__(self, api: BatchesApi, kept: RedisMessageBatches, rules: BatchRules) -> None:
        self.figures, self.permits = ModelMetrics(), Charging()
        self.governor = Governor("p", "the API", self.permits, GovernorRules(lease=60))
        self.meter = CostMeter()
        self.occupancy = Occupancy(lambda: None, lambda: None, lambda _: None)
        self.clock: StepClock | None = None
        self.model = AnthropicModel(
            api_key="key",
            model="m",
            base_url=api.url,
            observer=self.figures,
            governor=self.governor,
            batches=kept,
            batch_rules=rules,
        )

    def asks(
        self, *, needed_in: float = FAR, attempt: int = 1, run: str = "1-0", **of_run: Any
    ) -> asyncio.Task[str]:
        """Ask as the step of a run."""
        needed_at = time.monotonic() + needed_in if needed_in else 0.0
        caller = StepCaller("games", run, 1, needed_at, "k", run, attempt, **of_run)

        async def step() -> str:
            this_try = self.enter(caller)
            answer = await self.model.text(prompt="Why?", max_tokens=9, batch=True)
            this_try.end()
            return answer.text

        return asyncio.create_task(step())

    def enter(self, caller: StepCaller) -> StepTry:
        """Let what follows in this context be a try of a step."""
        CALLER.set(caller)
        METER.set(self.meter)
        OCCUPANCY.set(self.occupancy)
        end_in(10.0)
        self.clock = step_clock()
        return begin_try()

    async def ends(self) -> dict[str, float]:
        told = parsed(await Exposition([self.figures]).text())
        names = ("answered", "late", "failed", "left")
        counts = {n: value(told, "headstart_llm_batched_total", end=n) for n in names}
        return {name: count for name, count in counts.items() if count}


Sides = Callable[..., Awaitable[Side]]


async def handed_on(sides: Sides, api: BatchesApi, rules: BatchRules = RULES) -> Side:
    """Return a worker's model that takes over the batch of another worker."""
    one, two = await sides(), await sides(rules)
    number = len(api.batches)
    asking = one.asks()
    await wait_until(polled(api, number))
    one.governor.drain()
    with pytest.raises(ExecutorUnavailable):
        await asking
    return two


def environment(api: BatchesApi) -> dict[str, str]:
    return {
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": WAITING,
        "HEADSTART_LEASE": "2",
        "HEADSTART_WORKER_CONCURRENCY": "1",
        "HEADSTART_WARM_MODELS": "false",
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": api.url,
    }


@asynccontextmanager
async def served(
    valkey: Valkey, api: BatchesApi
) -> AsyncIterator[tuple[PrecomputeClient, processes.Process]]:
    """A client of a service of real processes, and its only worker."""
    own = environment(api)
    async with (
        processes.api(valkey.url, **own) as (_, address),
        PrecomputeClient(address) as client,
        processes.worker(valkey.url, **own) as worker,
    ):
        yield client, worker


def polled(api: BatchesApi, number: int, since: int = 0) -> Callable[[], bool]:
    return lambda: len(api.batches) > number and api.batches[number].polls > since
