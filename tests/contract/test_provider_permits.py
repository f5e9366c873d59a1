"""Permits of providers: all workers share calls, tokens, concurrency, pauses and the breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count

import pytest

from headstart_service.domain import (
    Ask,
    AskAnswer,
    CallOutcome,
    ProviderNews,
    Rates,
    Settlement,
    Turn,
    WaitsFor,
)
from headstart_service.store.connect import WORKER
from headstart_service.store.provider_permits import RedisPermits
from tests.contract.backend import BUDGET, Backend
from tests.support.waiting import REDIS_TICK, wait_until

NAME = "anthropic/claude-haiku-5-5"
LEASE = 30.0
NONE = Rates()
GRANTED, PROBE, WAIT = AskAnswer.GRANTED, AskAnswer.PROBE, AskAnswer.WAIT
_numbers = count()


class Worker:
    """One of the workers that ask."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.permits = RedisPermits(backend.client(WORKER), backend.rules(), name, budget=BUDGET)
        self.turns: dict[str, Turn] = {}

    async def ask(
        self,
        number: int = 1,
        rates: Rates = NONE,
        *,
        tokens: int = 0,
        namespace: str = "games",
        budget: int = 0,
        lease: float = LEASE,
    ) -> tuple[list[str], Turn]:
        """Ask so often at once; returns the permits that were granted, too."""
        asks = [Ask(f"lease-{next(_numbers)}", tokens, namespace, budget) for _ in range(number)]
        turn = await self.permits.take(NAME, asks, rates, lease)
        granted = [a.lease for a, got in zip(asks, turn.answers, strict=True) if got.granted]
        self.turns |= dict.fromkeys(granted, turn)
        return granted, turn

    async def end(
        self,
        lease: str,
        outcome: CallOutcome = CallOutcome.ANSWERED,
        *,
        ending: str = "answered",
        retry_after: float = 0.0,
        estimate: int = 0,
        used: int = 0,
        namespace: str = "games",
        rates: Rates = NONE,
    ) -> ProviderNews:
        settled = Settlement(
            lease=lease,
            outcome=outcome,
            ending=ending,
            namespace=namespace,
            granted_us=self.turns[lease].granted_us,
            retry_after=retry_after,
            estimate=estimate,
            tokens=used,
        )
        return await self.permits.settle(NAME, settled, rates)

    async def granted(self, rates: Rates = NONE) -> str:
        """The permit that it gets once there is one."""

        async def ask() -> list[str]:
            return (await self.ask(1, rates))[0]

        return (await wait_until(ask))[0]

    async def refused(self, *, retry_after: float = 0.0) -> ProviderNews:
        (lease,), _ = await self.ask()
        return await self.end(
            lease, CallOutcome.REFUSED, ending="rate_limited", retry_after=retry_after
        )


@pytest.fixture
async def two(store_backend: Backend) -> AsyncIterator[tuple[Worker, Worker]]:
    made = Worker(store_backend, "one"), Worker(store_backend, "two")
    yield made
    for worker in made:
        await worker.permits.aclose()


async def test_all_workers_share_the_calls_of_a_minute(two: tuple[Worker, Worker]) -> None:
    rates = Rates(calls_a_minute=60)
    first, turn = await two[0].ask(3, rates)
    assert (turn.answers, turn.waits_for) == ([GRANTED, WAIT, WAIT], WaitsFor.CALLS)
    assert 0 < turn.wait <= 1
    none, turn = await two[1].ask(1, rates)
    assert (len(first), none, turn.workers) == (1, [], 2)
    await two[1].granted(rates)
    # Another limit holds from the next ask.

    async def several() -> bool:
        return len((await two[0].ask(9, Rates(calls_a_minute=60_000)))[0]) > 1

    await wait_until(several)


async def test_a_call_that_was_not_made_gives_its_place_back(two: tuple[Worker, Worker]) -> None:
    rates = Rates(calls_a_minute=2)
    (lease,), _ = await two[0].ask(1, rates)
    assert (await two[1].ask(1, rates))[0] == []
    await two[0].end(lease, CallOutcome.UNUSED)
    assert len((await two[1].ask(1, rates))[0]) == 1


async def test_all_workers_share_the_calls_under_way(two: tuple[Worker, Worker]) -> None:
    rates = Rates(concurrency=2)
    (held, _), turn = await two[0].ask(3, rates)
    assert turn.waits_for is WaitsFor.CONCURRENCY
    assert (await two[1].ask(1, rates))[0] == []
    await two[0].end(held)
    # The worker that waits longest goes first: this is the other's turn no more than its own.
    granted = (await two[0].ask(1, rates))[0] + (await two[1].ask(1, rates))[0]
    assert len(granted) == 1


async def test_a_busy_worker_leaves_a_free_place_to_one_that_waits(
    two: tuple[Worker, Worker],
) -> None:
    rates = Rates(concurrency=1)
    (held,), _ = await two[0].ask(1, rates)
    assert (await two[1].ask(1, rates))[0] == []
    await two[0].end(held)
    assert (await two[0].ask(1, rates))[0] == []
    assert len((await two[1].ask(1, rates))[0]) == 1


async def test_the_permits_of_a_killed_worker_end(two: tuple[Worker, Worker]) -> None:
    rates, lease = Rates(concurrency=1), 0.5
    asked = time.monotonic()
    assert len((await two[0].ask(1, rates, lease=lease))[0]) == 1
    taken = (await two[1].ask(1, rates))[0]
    if taken:  # only on a machine so busy that the lease has run out
        assert time.monotonic() - asked >= lease - REDIS_TICK
        return
    await two[1].granted(rates)


async def test_all_workers_share_tokens_and_what_was_not_used_comes_back(
    two: tuple[Worker, Worker],
) -> None:
    rates = Rates(tokens_a_minute=600)
    (lease,), _ = await two[0].ask(1, rates, tokens=5000)
    none, turn = await two[1].ask(1, rates, tokens=10)
    assert (none, turn.waits_for) == ([], WaitsFor.TOKENS)
    assert turn.wait > 60
    await two[0].end(lease, estimate=5000, used=10, rates=rates)
    assert len((await two[1].ask(1, rates, tokens=10))[0]) == 1


async def test_a_refusal_makes_all_workers_pause_as_long_as_it_asks(
    two: tuple[Worker, Worker],
) -> None:
    news = await two[0].refused(retry_after=40.0)
    assert (news.event, news.ending) == ("paused", "rate_limited")
    none, turn = await two[1].ask()
    assert (none, turn.waits_for, turn.ending) == ([], WaitsFor.PAUSE, "rate_limited")
    assert 30 < turn.wait <= 40  # less by as much as a busy machine takes to ask
    assert 30 < turn.paused <= 40


async def test_a_pause_has_a_longest_time(two: tuple[Worker, Worker]) -> None:
    news = await two[0].refused(retry_after=86_400.0)
    assert news.paused == pytest.approx(300, abs=5)


async def test_without_limits_refusals_bound_the_calls(two: tuple[Worker, Worker]) -> None:
    calls, began = 0, time.monotonic()
    while time.monotonic() - began < 2.0:
        for worker in two:
            granted, turn = await worker.ask(16)
            calls += len(granted)
            for lease in granted:
                await worker.end(lease, CallOutcome.REFUSED, ending="overloaded")
            await asyncio.sleep(min(turn.wait, 0.05))
    assert calls < 25


async def test_the_breaker_opens_after_failures_and_lets_one_call_try(
    two: tuple[Worker, Worker],
) -> None:
    leases, _ = await two[0].ask(6)
    for lease in leases[:-1]:
        news = await two[0].end(lease, CallOutcome.FAILED, ending="server_error")
    assert (news.event, news.opened) == ("opened", 1)
    probe = await two[1].granted()
    assert two[1].turns[probe].answers == [PROBE]
    _, turn = await two[0].ask(2)
    assert (turn.answers, turn.waits_for, turn.opened) == ([WAIT, WAIT], WaitsFor.BREAKER, 1)
    news = await two[1].end(probe, CallOutcome.FAILED, ending="server_error")
    assert (news.event, news.opened) == ("opened", 2)
    probe = await two[0].granted()
    # A probe that is cancelled shows nothing: another one may begin at once.
    await two[0].end(probe, CallOutcome.LOST, ending="cancelled")
    (probe,), _ = await two[1].ask()
    news = await two[1].end(probe)
    assert (news.event, news.opened) == ("closed", 0)
    lease = await two[0].granted()
    assert two[0].turns[lease].answers == [GRANTED]


async def test_an_answer_ends_a_row_of_failures(two: tuple[Worker, Worker]) -> None:
    leases, _ = await two[0].ask(9)
    for number, lease in enumerate(leases):
        fine = number == 4
        outcome = CallOutcome.ANSWERED if fine else CallOutcome.FAILED
        news = await two[0].end(lease, outcome, ending="timeout")
    assert news.opened == 0


async def test_a_namespace_over_its_budget_gets_no_permit_and_others_do(
    two: tuple[Worker, Worker], store_backend: Backend
) -> None:
    (lease,), _ = await two[0].ask(budget=100)
    await two[0].end(lease, used=100)
    _, turn = await two[1].ask(2, budget=100)
    assert turn.answers == [AskAnswer.OVER_BUDGET] * 2
    assert len((await two[1].ask(namespace="shop:eu", budget=100))[0]) == 1
    stats = await store_backend.store.stats("")
    assert stats.over_budget == {"games": 100}


@pytest.mark.parametrize("raised", [101, 0])
async def test_a_raised_or_removed_budget_is_used_up_no_more(
    two: tuple[Worker, Worker], store_backend: Backend, raised: int
) -> None:
    (lease,), _ = await two[0].ask(budget=100)
    await two[0].end(lease, used=100)
    await two[0].ask(namespace="games", budget=100)
    assert len((await two[1].ask(namespace="shop:eu", budget=200))[0]) == 1
    assert (await store_backend.store.stats("")).over_budget == {"games": 100}
    assert len((await two[1].ask(budget=raised))[0]) == 1
    assert (await store_backend.store.stats("")).over_budget == {}


async def test_calls_under_way_count_in_a_budget_and_those_beyond_it_wait(
    two: tuple[Worker, Worker],
) -> None:
    """Else as many calls as there is room for would each exceed it."""
    first, turn = await two[0].ask(5, tokens=40, budget=100)
    assert (len(first), turn.waits_for) == (3, WaitsFor.TOKENS)
    assert turn.wait > 0
    assert (await two[1].ask(3, tokens=40, budget=100))[0] == []
    # Neither others nor the rest of a batch wait for that.
    asks = [Ask("a", 40, "games", 100), Ask("b", 40, "shop", 0)]
    turn = await two[1].permits.take(NAME, asks, NONE, LEASE)
    assert turn.answers == [WAIT, GRANTED]
    for lease in first:
        await two[0].end(lease, estimate=40, used=10)
    second, _ = await two[1].ask(5, tokens=40, budget=100)
    assert len(second) == 2
    for lease in second:
        await two[1].end(lease, estimate=40, used=40)
    _, turn = await two[1].ask(1, tokens=40, budget=100)
    assert turn.answers == [AskAnswer.OVER_BUDGET]


async def test_what_the_calls_of_a_killed_worker_would_cost_comes_back(
    two: tuple[Worker, Worker],
) -> None:
    assert len((await two[0].ask(2, tokens=80, budget=100, lease=1.0))[0]) == 2

    async def free() -> list[str]:
        return (await two[1].ask(1, tokens=80, budget=100))[0]

    assert await free() == []
    assert await wait_until(free)


async def test_cancelled_calls_count_in_budget_and_ledger(
    two: tuple[Worker, Worker], store_backend: Backend
) -> None:
    (first, second), _ = await two[0].ask(2, namespace="shop:eu")
    await two[0].end(first, CallOutcome.LOST, ending="cancelled", used=70, namespace="shop:eu")
    await two[0].end(second, CallOutcome.UNUSED, namespace="shop:eu")
    _, turn = await two[1].ask(namespace="shop:eu", budget=70)
    assert turn.answers == [AskAnswer.OVER_BUDGET]
    for namespace in ("", "shop:eu"):
        ledger = (await store_backend.store.stats(namespace)).ledger
        assert ledger is not None
        assert ledger.llm_calls == 1


async def test_the_store_tells_what_is_known_of_each_provider(
    two: tuple[Worker, Worker], store_backend: Backend
) -> None:
    assert (await store_backend.store.stats("")).providers == []
    await two[0].ask(3, Rates(calls_a_minute=60))
    (found,) = (await store_backend.store.stats("")).providers
    assert (found.name, found.waits_for, found.paused) == (NAME, WaitsFor.CALLS, 0)
    lease = next(iter(two[0].turns))
    await two[0].end(lease, CallOutcome.REFUSED, ending="overloaded", retry_after=9)
    (found,) = (await store_backend.store.stats("")).providers
    assert (found.ending, found.opened) == ("overloaded", 0)
    assert 8 < found.paused <= 9
    assert found.rate > 0


async def test_tokens_that_need_no_permit_count_in_the_budget_alone(
    store_backend: Backend,
) -> None:
    one, rates = Worker(store_backend, "w1"), Rates(tokens_a_minute=60)
    charged = Settlement(
        lease="none", outcome=CallOutcome.CHARGED, namespace="games", tokens=500, cached_tokens=3
    )
    await one.permits.settle(NAME, charged, rates)
    granted, _ = await one.ask(rates=rates, budget=1000)
    assert granted, "the minute's tokens are all there"
    await one.permits.settle(NAME, charged, rates)
    _, turn = await one.ask(rates=rates, budget=1000)
    assert turn.answers == [AskAnswer.OVER_BUDGET]
