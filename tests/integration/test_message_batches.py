"""Calls in Message Batches: the real SDK, a local API, a real Valkey, and worker processes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headstart import PrecomputeClient
from headstart_service.domain import ProviderNews, Rates, Settlement
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.providers.batched_calls import BatchRules
from headstart_service.providers.governor import Governor, GovernorRules
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.store.connect import WORKER, open_client
from headstart_service.store.message_batches import RedisMessageBatches
from headstart_service.store.store_rules import StoreRules
from headstart_service.telemetry.metrics.exposition import Exposition
from headstart_service.telemetry.metrics.work import ModelMetrics
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.step_caller import CALLER, StepCaller
from headstart_service.worker.step_deadline import StepClock, end_in, step_clock
from headstart_service.worker.step_try import begin_try
from tests.support import processes
from tests.support.batches_api import BatchesApi, Result
from tests.support.messages_api import Reply
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
        self, *, needed_in: float = FAR, attempt: int = 1, run: str = "1-0", **changes: Any
    ) -> asyncio.Task[str]:
        """Ask as the step of a run."""
        needed_at = time.monotonic() + needed_in if needed_in else 0.0
        caller = StepCaller("games", run, 1, needed_at, "k", run, attempt)

        async def step() -> str:
            CALLER.set(caller)
            METER.set(self.meter)
            end_in(10.0)
            self.clock = step_clock()
            this_try = begin_try()
            answer = await self.model.text(prompt="Why?", max_tokens=9, batch=True, **changes)
            this_try.end()
            return answer.text

        return asyncio.create_task(step())

    async def ends(self) -> dict[str, float]:
        told = parsed(await Exposition([self.figures]).text())
        names = ("answered", "late", "failed", "left")
        counts = {n: value(told, "headstart_llm_batched_total", end=n) for n in names}
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
async def api() -> AsyncIterator[BatchesApi]:
    with BatchesApi() as opened:
        yield opened


Sides = Any


@pytest.fixture
async def kept(valkey: Valkey) -> AsyncIterator[RedisMessageBatches]:
    client = open_client(valkey.url, WORKER)
    made = RedisMessageBatches(client, StoreRules(partitions=1, max_records=100, failure_ttl=60.0))
    yield made
    await made.aclose()
    await client.aclose()


@pytest.fixture
async def sides(kept: RedisMessageBatches, api: BatchesApi) -> AsyncIterator[Sides]:
    """Opens workers' models that share a Valkey."""
    async with AsyncExitStack() as stack:

        async def opened(rules: BatchRules = RULES) -> Side:
            side = Side(api, kept, rules)
            await stack.enter_async_context(side.model)
            return side

        yield opened


async def test_a_call_that_is_needed_later_has_its_answer_from_a_batch(
    sides: Sides, api: BatchesApi
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: api.batches and api.batches[0].polls > 2)
    left = side.clock.left
    await wait_until(lambda: api.batches[0].polls > 4)
    assert side.clock.left == left, "a step's clock stands still while its batch is worked on"
    usage = {"input_tokens": 10, "output_tokens": 20}
    api.end(Result(text="Later.", usage=usage))
    assert await asking == "Later."
    assert not api.requests, "no direct call"
    [request] = api.batches[0].requests
    assert request["params"] == {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Why?"}],
    }
    assert side.meter.llm_tokens == 30
    assert side.meter.waited > 0
    await wait_until(lambda: side.permits.charged == [15])  # a budget's token is a half
    assert await side.ends() == {"answered": 1}
    # Its step's try has ended: the next one asks anew.
    again = side.asks()
    await wait_until(lambda: len(api.batches) == 2)
    api.end()
    assert await again == "Because."


async def test_calls_that_are_needed_soon_are_direct(sides: Sides, api: BatchesApi) -> None:
    side = await sides()
    for needed_in in (0.0, RULES.least - 1):
        assert await side.asks(needed_in=needed_in)
    assert len(api.requests) == 2
    assert not api.batches


@pytest.mark.parametrize(
    "result",
    [
        Result("errored"),
        Result("expired"),
        Result("canceled"),
        Result(raw=b'{"custom_id": "no JSON'),
        Result(raw=b'{"custom_id": "another", "result": {"type": "succeeded"}}\n'),
        Result(raw=b""),
    ],
    ids=["errored", "expired", "canceled", "malformed", "another's", "empty"],
)
async def test_a_batch_without_an_answer_leads_to_a_direct_call(
    sides: Sides, api: BatchesApi, result: Result
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: api.batches)
    if result.raw == b"" and result.kind == "succeeded":
        api.batches[0].status = "ended"  # with no line at all
    else:
        api.end(result)
    assert await asking
    assert len(api.requests) == 1
    assert await side.ends() == {"failed": 1}


async def test_a_refusal_in_a_batch_fails_as_that_of_a_direct_call(
    sides: Sides, api: BatchesApi
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: api.batches)
    api.end(Result(stop_reason="refusal"))
    with pytest.raises(StepFailed, match="declined to answer") as failed:
        await asking
    assert not failed.value.retry
    assert not api.requests


async def test_what_the_api_cannot_do_now_is_tried_again_and_what_it_never_does_is_not(
    sides: Sides, api: BatchesApi
) -> None:
    side = await sides()
    api.refusals += [Reply.status(529)]
    asking = side.asks()
    await wait_until(lambda: api.batches)
    api.refusals += [Reply.status(500), Reply.status(429)]
    await wait_until(lambda: not api.refusals)
    api.end()
    assert await asking == "Because."
    assert not api.requests
    api.refusals += [Reply.status(404)]  # a gateway without batches
    assert await side.asks()
    assert len(api.requests) == 1
    asking = side.asks()
    await wait_until(lambda: len(api.batches) == 2)
    api.refusals += [Reply.status(404)]  # the batch is gone
    assert await asking
    assert len(api.requests) == 2


async def handed_on(sides: Sides, api: BatchesApi) -> Side:
    """Return a worker's model that takes over the batch of another worker."""
    one, two = await sides(), await sides()
    asking = one.asks()
    await wait_until(lambda: api.batches and api.batches[0].polls)
    one.governor.drain()
    with pytest.raises(ExecutorUnavailable):
        await asking
    return two


async def test_a_late_batch_is_canceled_before_the_need_and_its_call_made_directly(
    sides: Sides, api: BatchesApi
) -> None:
    side = await handed_on(sides, api)
    api.ends_canceled = Result("")  # it goes on for a while
    assert await side.asks(attempt=2, needed_in=10.3)
    assert (len(api.batches), api.batches[0].cancels, len(api.requests)) == (1, 1, 1)
    assert await side.ends() == {"late": 1}
    # What it costs all the same is counted.
    api.end(Result(usage={"input_tokens": 100, "output_tokens": 100}))
    await wait_until(lambda: 100 in side.permits.charged)


async def test_a_batch_that_ends_while_it_is_canceled_gives_its_answer(
    sides: Sides, api: BatchesApi
) -> None:
    side = await handed_on(sides, api)
    api.ends_canceled = Result(text="Just in time.")
    assert await side.asks(attempt=2, needed_in=1.0) == "Just in time."
    assert not api.requests


async def test_a_cancelled_call_cancels_its_batch_unless_another_takes_it(
    sides: Sides, api: BatchesApi, kept: RedisMessageBatches
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: api.batches and api.batches[0].polls)
    asking.cancel()
    await wait_until(lambda: api.batches[0].cancels)
    assert await side.ends() == {"left": 1}

    replacing = BatchRules(least=60.0, first=0.02, longest=0.1, grace=60.0)
    replaced = Side(api, kept, replacing)
    async with replaced.model:
        asking = replaced.asks()
        await wait_until(lambda: len(api.batches) == 2 and api.batches[1].polls)
        asking.cancel()
        await asyncio.wait({asking})
        polls = api.batches[1].polls
        asking = side.asks(run="2-0")
        await wait_until(lambda: api.batches[1].polls > polls)
    # Its grace has ended with the model.
    api.end(Result(text="Kept."))
    assert await asking == "Kept."
    assert (len(api.batches), api.batches[1].cancels) == (2, 0)


async def test_a_worker_that_drains_hands_its_batch_on(
    sides: Sides, api: BatchesApi, kept: RedisMessageBatches
) -> None:
    one, two = Side(api, kept, RULES), await sides()
    async with one.model:
        asking = one.asks()
        await wait_until(lambda: api.batches and api.batches[0].polls)
        one.governor.drain()
        with pytest.raises(ExecutorUnavailable):
            await asking
    taken = two.asks(run="2-0")
    polls = api.batches[0].polls
    await wait_until(lambda: api.batches[0].polls > polls)
    api.end(Result(text="Handed on."))
    assert await taken == "Handed on."
    assert (len(api.batches), api.batches[0].cancels) == (1, 0)


async def test_an_answer_is_read_again_when_its_try_was_cut_off(
    sides: Sides, api: BatchesApi
) -> None:
    one, two = await sides(), await sides()
    CALLER.set(StepCaller("games", "1-0", 1, time.monotonic() + FAR, "k", "1-0", 1))
    begin_try()  # of a worker that is killed before the try ends
    asking = asyncio.create_task(one.model.text(prompt="Why?", max_tokens=9, batch=True))
    await wait_until(lambda: api.batches)
    api.end(Result(text="Once."))
    assert (await asking).text == "Once."
    assert await two.asks(attempt=2) == "Once."
    assert len(api.batches) == 1


async def test_without_redis_the_call_is_direct(
    sides: Sides, api: BatchesApi, valkey: Valkey
) -> None:
    side = await sides()
    await valkey.kill()
    assert await side.asks()
    assert len(api.requests) == 1
    assert not api.batches


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


def polled(api: BatchesApi, number: int, since: int = 0) -> Callable[[], bool]:
    return lambda: len(api.batches) > number and api.batches[number].polls > since


async def test_no_batch_is_paid_twice_when_its_worker_is_killed(
    valkey: Valkey, api: BatchesApi
) -> None:
    own = environment(api)
    async with (
        processes.api(valkey.url, **own) as (_, address),
        PrecomputeClient(address) as client,
    ):
        async with processes.worker(valkey.url, **own) as killed:
            await client.start("k", "unhurried", {}, expected_need_in=7200)
            await wait_until(polled(api, 0))
            # The run that waits has no slot, so the only one is free for another.
            await client.start("d", "patient", {})
            assert (await client.get_results("d", wait=30)).artifact("patient")
            api.end(Result(text="one", usage={"input_tokens": 10, "output_tokens": 1}))
            await wait_until(polled(api, 1))
            killed.kill()
        polls = [batch.polls for batch in api.batches]
        async with processes.worker(valkey.url, **own) as last:
            await wait_until(polled(api, 0, polls[0]))  # the first answer is read again
            await wait_until(polled(api, 1, polls[1]))
            api.end(Result(text="two", usage={"input_tokens": 20, "output_tokens": 2}))
            results = await client.get_results("k", wait=30)
            assert results.artifact("unhurried", list) == ["one", "two"]
            assert (len(api.batches), len(api.requests)) == (2, 1)
            assert not any(batch.cancels for batch in api.batches)
            stats = await client.get_stats()
            assert sum(fate.llm_tokens for fate in stats.ledger.fates.values()) == 33 + 2

            # A cancelled run's batch is canceled, at the latest when its worker ends.
            await client.start("c", "unhurried", {}, expected_need_in=7200)
            await wait_until(polled(api, 2))
            await client.cancel("c")
            await last.says("default/c .* cancelled or replaced")
            last.send(signal.SIGTERM)
            assert await last.ended() == 0
        assert [batch.cancels for batch in api.batches] == [0, 0, 1]
