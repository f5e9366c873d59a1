"""The governor of a provider's calls, on a virtual clock: order, pauses, budgets, the step's time."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from headstart_service.domain import (
    Ask,
    AskAnswer,
    CallOutcome,
    FailureReason,
    ProviderNews,
    Rates,
    Settlement,
    Turn,
    WaitsFor,
)
from headstart_service.domain.errors import ExecutorUnavailable, StoreUnavailable
from headstart_service.providers import governor as governor_module
from headstart_service.providers import permit, retries
from headstart_service.providers.governor import Governor, GovernorRules, NotCalled, WaitEnded
from headstart_service.providers.local_permits import LocalPermits, SharedPermits
from headstart_service.worker import step_deadline
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.hurry import Hurry
from headstart_service.worker.step_caller import CALLER, StepCaller
from headstart_service.worker.step_deadline import end_in, seconds_left
from tests.support.virtual_time import loop_time, run_virtually

ANSWERED = CallOutcome.ANSWERED


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules measure by the virtual loop."""
    module = SimpleNamespace(monotonic=loop_time, perf_counter=loop_time)
    for each in (governor_module, permit, retries, step_deadline):
        monkeypatch.setattr(each, "time", module)


class Permits:
    """Grants what a test has scripted; once that is used up, everything."""

    def __init__(self, *turns: Turn, fails: Exception | None = None) -> None:
        self._turns = list(turns)
        self._fails = fails
        self.asked: list[list[Ask]] = []
        self.settled: list[Settlement] = []
        self.came = asyncio.Event()

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        if self._fails:
            raise self._fails
        self.asked.append(list(asks))
        self.came.set()
        if self._turns:
            turn = self._turns.pop(0)
            answers = [*turn.answers, *[AskAnswer.WAIT] * len(asks)][: len(asks)]
            return replace(turn, answers=answers)
        return Turn(answers=[AskAnswer.GRANTED] * len(asks))

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        self.settled.append(settled)
        return ProviderNews(0.0, 0)


def waits(waits_for: WaitsFor, seconds: float, *answers: AskAnswer) -> Turn:
    return Turn(answers=answers, wait=seconds, waits_for=waits_for, ending="rate_limited")


def governed(permits: Any, **rules: Any) -> Governor:
    return Governor("p/m", "the API", permits, GovernorRules(lease=60, **rules))


def within(seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
    """Run as a step whose try has so much time."""

    async def stepped() -> Any:
        async with asyncio.timeout(seconds) as limit:
            end_in(seconds, limit)
            return await work()

    return asyncio.create_task(stepped())


def test_calls_go_in_the_order_of_need() -> None:
    async def main() -> list[int]:
        one = Turn(answers=[AskAnswer.GRANTED], wait=1.0, waits_for=WaitsFor.CALLS)
        governor, order = governed(Permits(*[one] * 5)), []

        async def call(need: int) -> None:
            CALLER.set(StepCaller("games", taken_us=need))
            permit = await governor.permit()
            order.append(need)
            await permit.settle(ANSWERED, "answered")

        async with asyncio.TaskGroup() as group:
            for need in (5, 3, 9, 1):
                group.create_task(call(need))
        await governor.aclose()
        return order

    assert run_virtually(main()) == [1, 3, 5, 9]


def test_a_call_for_which_a_caller_waits_goes_first_and_waits_no_longer_than_others() -> None:
    async def main(granted: int) -> tuple[list[str], float]:
        turns = [waits(WaitsFor.CALLS, 1.0, AskAnswer.GRANTED)] * granted
        permits = Permits(waits(WaitsFor.CALLS, 1.0), *turns, *[waits(WaitsFor.CALLS, 1.0)] * 100)
        governor, order, hurry = governed(permits, patience=10.0), [], Hurry()
        callers = [StepCaller("games", "a", 1, declared_at=90.0, declared_us=90, hurry=hurry)]
        callers += [StepCaller("games", run, number) for number, run in enumerate("bcd", start=2)]

        async def call(caller: StepCaller) -> None:
            CALLER.set(caller)
            permit = await governor.permit()
            order.append(caller.run)
            await permit.settle(ANSWERED, "answered")

        calls = [asyncio.create_task(call(each)) for each in callers]
        await permits.came.wait()
        await asyncio.sleep(0 if granted else 5)
        hurry.set()
        await asyncio.wait(calls)
        await governor.aclose()
        return order, loop_time()

    assert run_virtually(main(2)) == (["a", "b"], pytest.approx(10.0))
    assert run_virtually(main(0)) == ([], pytest.approx(15.0))


def test_a_step_has_all_of_its_time_once_it_is_its_turn() -> None:
    async def main() -> tuple[float, float | None, float]:
        governor = governed(Permits(*[waits(WaitsFor.CALLS, 4.0)] * 10))
        meter = CostMeter()

        async def step() -> tuple[float, float | None]:
            METER.set(meter)
            await asyncio.sleep(1)
            await governor.permit()
            return loop_time(), seconds_left()

        at, left = await within(5, step)
        return at, left, meter.waited

    at, left, waited = run_virtually(main())
    assert at > 40
    assert left == pytest.approx(4.0)
    assert waited == pytest.approx(at - 1)


def test_a_step_s_time_goes_on_while_its_provider_pauses() -> None:
    async def main() -> tuple[float, WaitEnded]:
        governor = governed(Permits(*[waits(WaitsFor.PAUSE, 2.0)] * 10))
        with pytest.raises(WaitEnded) as ended:
            await within(5, governor.permit)
        return loop_time(), ended.value

    at, ended = run_virtually(main())
    assert at < 5
    assert (ended.failure_reason, ended.end) == (FailureReason.DEPENDENCY_AWAY, "rate_limited")
    assert "calls pause" in str(ended)


def test_a_run_that_is_needed_later_waits_for_its_provider_until_then() -> None:
    async def main(pauses: int) -> tuple[float, float | None]:
        governor = governed(Permits(*[waits(WaitsFor.BREAKER, 2.0)] * pauses))

        async def step() -> float | None:
            CALLER.set(StepCaller("games", taken_us=1, declared_at=60.0))
            await governor.permit()
            return seconds_left()

        return await within(5, step), loop_time()

    left, at = run_virtually(main(10))
    assert left == pytest.approx(5.0)
    assert at > 20
    with pytest.raises(WaitEnded, match="calls have failed in a row"):
        run_virtually(main(100))


def test_a_call_waits_for_its_turn_no_longer_than_its_patience() -> None:
    async def main() -> tuple[float, WaitEnded]:
        turns = [waits(WaitsFor.CONCURRENCY, 1.0)] * 100
        governor = governed(Permits(*turns), patience=10.0)
        with pytest.raises(WaitEnded) as ended:
            await within(5, governor.permit)
        return loop_time(), ended.value

    at, ended = run_virtually(main())
    assert at == pytest.approx(10.0)
    assert ended.failure_reason is FailureReason.QUEUE_TIMED_OUT
    assert str(ended) == "waited 10 s for its turn at the API"


def test_a_namespace_over_its_budget_fails_at_once() -> None:
    async def main() -> NotCalled:
        turn = Turn(answers=[AskAnswer.OVER_BUDGET])
        governor = governed(Permits(turn), budget={"games": 500}.__getitem__)
        CALLER.set(StepCaller("games"))
        with pytest.raises(NotCalled) as failed:
            await governor.permit()
        return failed.value

    failed = run_virtually(main())
    assert (failed.failure_reason, failed.retry) == (FailureReason.OVER_BUDGET, False)
    assert "namespace games has used up its budget of 500 tokens" in str(failed)
    assert failed.end == "over_budget"


def test_a_permit_whose_caller_has_gone_is_given_back() -> None:
    async def main() -> list[CallOutcome]:
        permits = Permits()
        governor = governed(permits)
        caller = asyncio.create_task(governor.permit())
        await permits.came.wait()
        caller.cancel()
        await asyncio.wait({caller})
        await asyncio.sleep(1)
        await governor.aclose()
        return [each.outcome for each in permits.settled]

    assert run_virtually(main()) == [CallOutcome.UNUSED]


def test_a_permit_is_settled_once() -> None:
    async def main() -> list[Settlement]:
        permits = Permits()
        permit = await governed(permits).permit(50)
        permit.settle(ANSWERED, "answered", tokens=40)
        await permit.settle(CallOutcome.LOST, "cancelled")
        return permits.settled

    (settled,) = run_virtually(main())
    assert (settled.outcome, settled.estimate, settled.tokens) == (ANSWERED, 50, 40)


def test_a_draining_worker_hands_on_runs_that_have_not_paid() -> None:
    async def main() -> tuple[list[str], int]:
        granted = Turn(answers=[AskAnswer.GRANTED])
        permits = Permits(granted, *[waits(WaitsFor.CALLS, 1.0)] * 2)
        governor, ended = governed(permits), []

        async def call(run: str, calls: int = 1) -> None:
            CALLER.set(StepCaller("games", run, taken_us=len(run)))
            try:
                for _ in range(calls):
                    permit = await governor.permit()
                    await asyncio.sleep(5)
                    await permit.settle(ANSWERED, "answered")
                ended.append(run)
            except ExecutorUnavailable:
                ended.append(f"{run} handed on")

        async with asyncio.TaskGroup() as group:
            group.create_task(call("a", 2))
            await asyncio.sleep(0.5)
            group.create_task(call("bb"))
            await asyncio.sleep(0.1)
            governor.drain()
            await asyncio.sleep(0.1)
            assert ended == ["bb handed on"]
            group.create_task(call("ccc"))
        await governor.aclose()
        return ended, len(permits.settled)

    assert run_virtually(main()) == (["bb handed on", "ccc handed on", "a"], 2)


def test_a_draining_worker_ends_a_step_that_has_paid() -> None:
    async def main() -> None:
        governor, meter = governed(Permits()), CostMeter(llm_tokens=7)
        governor.drain()
        CALLER.set(StepCaller("games", "a"))
        with pytest.raises(ExecutorUnavailable, match="the worker stops"):
            await governor.permit()
        METER.set(meter)
        await (await governor.permit()).settle(ANSWERED, "answered")

    run_virtually(main())


def test_an_error_of_the_permits_reaches_the_callers() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="no number"):
            await governed(Permits(fails=ValueError("no number"))).permit()

    run_virtually(main())


def test_the_wait_in_front_of_a_provider_is_known() -> None:
    async def main() -> tuple[float, float]:
        turn = Turn(answers=[], wait=1.0, waits_for=WaitsFor.CALLS, rate=2.0)
        governor = governed(Permits(*[turn] * 50))
        before = governor.wait
        callers = [asyncio.create_task(governor.permit()) for _ in range(10)]
        await asyncio.sleep(0.5)
        found = governor.wait
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
        await governor.aclose()
        return before, found

    assert run_virtually(main()) == (0.0, 5.0)


# Many callers


class Answering:
    """Answers each ask by its namespace, and keeps nothing; by default every call waits."""

    def __init__(self, waits_for: WaitsFor = WaitsFor.CALLS, **answers: AskAnswer) -> None:
        self._answers = answers
        self._waits_for = waits_for
        self.budgets: set[int] = set()
        self.asks = 0

    async def take(self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float) -> Turn:
        self.asks += 1
        self.budgets |= {ask.budget for ask in asks}
        answers = [self._answers.get(ask.namespace, AskAnswer.WAIT) for ask in asks]
        waiting = AskAnswer.WAIT in answers
        waits_for = self._waits_for if waiting else WaitsFor.NOTHING
        return Turn(answers=answers, wait=1.0 * waiting, waits_for=waits_for)

    async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
        return ProviderNews(0.0, 0)


async def order_of_turns(governor: Governor, calls: Sequence[tuple[str, int]]) -> str:
    """The first letters of the namespaces of these calls, in the order of their permits."""
    order = ""

    async def call(namespace: str, need: int) -> None:
        nonlocal order
        CALLER.set(StepCaller(namespace, taken_us=need))
        permit = await governor.permit()
        order += namespace[0]
        await permit.settle(ANSWERED, "answered")

    async with asyncio.TaskGroup() as group:
        for namespace, need in calls:
            group.create_task(call(namespace, need))
    await governor.aclose()
    return order


def one_by_one(number: int) -> Permits:
    one = Turn(answers=[AskAnswer.GRANTED], wait=1.0, waits_for=WaitsFor.CALLS)
    return Permits(*[one] * number)


def test_a_namespace_s_many_calls_do_not_keep_another_s_few_from_their_turn() -> None:
    calls = [*[("flood", number) for number in range(50)], ("light", 900), ("light", 901)]
    order = run_virtually(order_of_turns(governed(one_by_one(60)), calls))
    assert order.index("l") <= 1
    assert order.rindex("l") <= 3


def test_namespaces_share_permits_by_their_weights() -> None:
    weights = {"heavy": 3.0, "other": 1.0}
    governor = governed(one_by_one(100), weight=weights.__getitem__)
    calls = [(name, number) for number in range(40) for name in weights]
    order = run_virtually(order_of_turns(governor, calls))
    assert 29 <= order[:40].count("h") <= 31


def test_a_namespace_over_its_budget_fails_at_once_behind_many_other_calls() -> None:
    async def main() -> list[float]:
        permits = Answering(poor=AskAnswer.OVER_BUDGET)
        governor = governed(permits, budget=lambda name: 9 if name == "poor" else 0)

        async def call(namespace: str, need: int) -> None:
            CALLER.set(StepCaller(namespace, taken_us=need))
            await governor.permit()

        others = [asyncio.create_task(call("rich", number)) for number in range(100)]
        await asyncio.sleep(5)
        poor = [asyncio.create_task(call("poor", 1000 + number)) for number in range(50)]
        began, at = loop_time(), []
        for each in poor:
            with pytest.raises(NotCalled, match="used up its budget"):
                await each
            at.append(loop_time() - began)
        for each in others:
            each.cancel()
        await asyncio.wait(others)
        await governor.aclose()
        return at

    assert max(run_virtually(main())) < 0.1


def test_a_budget_that_changes_counts_for_calls_that_wait_already() -> None:
    async def main() -> set[int]:
        budget = 5
        permits = Answering()
        governor = governed(permits, budget=lambda _: budget)
        waiting = asyncio.create_task(governor.permit())
        await asyncio.sleep(5)
        permits.budgets.clear()
        budget = 7
        await asyncio.sleep(5)
        waiting.cancel()
        await asyncio.wait({waiting})
        await governor.aclose()
        return permits.budgets

    assert run_virtually(main()) == {7}


def test_a_run_that_is_needed_later_waits_for_its_turn_until_then() -> None:
    async def main() -> float:
        governor = governed(Permits(*[waits(WaitsFor.CALLS, 1.0)] * 50), patience=10.0)
        CALLER.set(StepCaller("games", taken_us=1, declared_at=100.0))
        await within(5, governor.permit)
        return loop_time()

    assert run_virtually(main()) > 50


def test_a_permit_that_comes_as_patience_ends_is_given_back() -> None:
    class Late(Permits):
        """Its answer and the end of the caller's patience meet in one turn of the loop."""

        async def take(
            self, provider: str, asks: Sequence[Ask], rates: Rates, lease: float
        ) -> Turn:
            time.sleep(0.06)  # noqa: ASYNC251  # the loop is busy until patience has ended
            await asyncio.sleep(0)
            return await super().take(provider, asks, rates, lease)

    async def main() -> list[CallOutcome]:
        permits = Late()
        governor = governed(permits, patience=0.05)
        with pytest.raises(WaitEnded):
            await governor.permit()
        await governor.aclose()
        return [each.outcome for each in permits.settled]

    assert asyncio.run(main()) == [CallOutcome.UNUSED]


def test_a_cancelled_call_stays_cancelled_though_it_was_refused_in_the_same_moment() -> None:
    async def main() -> bool:
        governor = governed(Answering())

        async def call() -> None:
            CALLER.set(StepCaller("games", "a run"))
            await governor.permit()

        waiting = asyncio.create_task(call())
        await asyncio.sleep(5)
        governor.drain()
        waiting.cancel()
        await asyncio.wait({waiting})
        await governor.aclose()
        return waiting.cancelled()

    assert run_virtually(main())


def test_runs_that_have_ended_take_no_memory() -> None:
    async def main() -> int:
        governor = governed(Answering(games=AskAnswer.GRANTED))

        async def calls(start: int, number: int) -> None:
            for run in range(start, start + number):
                CALLER.set(StepCaller("games", f"0 {run}-0"))
                await (await governor.permit()).settle(ANSWERED, "answered")

        await calls(0, 100)
        tracemalloc.start()
        try:
            await calls(100, 2000)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            await governor.aclose()

    assert run_virtually(main()) < 100_000


def test_the_cost_of_an_ask_does_not_grow_with_the_calls_that_wait() -> None:
    async def main(callers: int) -> float:
        permits = Answering()
        governor = governed(permits, patience=10_000.0)
        waiting = [within(60, governor.permit) for _ in range(callers)]
        await asyncio.sleep(5)
        asks, began = permits.asks, time.process_time()
        await asyncio.sleep(300)
        took = (time.process_time() - began) / (permits.asks - asks)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        await governor.aclose()
        return took

    few, many = run_virtually(main(100)), run_virtually(main(4000))
    assert many < 8 * few


# Without the store


def test_while_the_store_is_away_a_worker_goes_on_with_its_share() -> None:
    async def main() -> tuple[int, int, WaitsFor]:
        away = Permits(fails=StoreUnavailable("away"))
        own = LocalPermits(loop_time)
        own.learn("p", Turn(answers=[], rate=12.0, workers=4))
        shared = SharedPermits(away, own)

        async def granted() -> int:
            asks = [Ask(f"{loop_time()}-{n}", 0, "games") for n in range(16)]
            turn = await shared.take("p", asks, Rates(), 60.0)
            return sum(answer.granted for answer in turn.answers)

        first = await granted()
        await asyncio.sleep(10)
        later = 0
        for _ in range(10):
            await asyncio.sleep(1)
            later += await granted()
        limited = await shared.take("p", [Ask("a", 0, "g"), Ask("b", 0, "g")], Rates(60), 60.0)
        return first, later, limited.waits_for

    first, later, waits_for = run_virtually(main())
    assert 1 <= first <= 10
    assert 28 <= later <= 33
    assert waits_for is WaitsFor.CALLS


def test_a_worker_alone_pauses_and_breaks_the_circuit() -> None:
    async def main() -> list[WaitsFor]:
        own, seen = LocalPermits(loop_time), []

        async def call(outcome: CallOutcome) -> WaitsFor:
            lease = f"{loop_time()}"
            turn = await own.take("p", [Ask(lease, 0, "g")], Rates(), 60.0)
            if turn.answers[0].granted:
                settled = Settlement(
                    lease=lease, outcome=outcome, granted_us=turn.granted_us, ending="timeout"
                )
                await own.settle("p", settled, Rates())
            await asyncio.sleep(0.1)
            return turn.waits_for

        seen += [await call(CallOutcome.FAILED) for _ in range(6)]
        await asyncio.sleep(1)
        seen.append(await call(CallOutcome.ANSWERED))
        await asyncio.sleep(1)
        seen.append(await call(CallOutcome.REFUSED))
        seen.append(await call(CallOutcome.ANSWERED))
        return seen

    nothing = WaitsFor.NOTHING
    expected = [*[nothing] * 5, WaitsFor.BREAKER, nothing, nothing, WaitsFor.PAUSE]
    assert run_virtually(main()) == expected


def test_refusals_of_calls_that_the_store_had_granted_slow_a_worker_alone_once() -> None:
    """The store's clock is another: by it each of them would have begun after the one before."""

    async def main() -> float:
        own = LocalPermits(loop_time)
        shared = SharedPermits(Permits(fails=StoreUnavailable("away")), own)
        await asyncio.sleep(1)
        own.learn("p", Turn(answers=[], rate=16.0))
        for number in range(10):
            settled = Settlement(
                lease=f"{number}",
                outcome=CallOutcome.REFUSED,
                granted_us=1_800_000_000_000_000,
                ending="rate_limited",
            )
            await own.settle("p", settled, Rates())
        return (await shared.take("p", [], Rates(), 60.0)).rate

    assert run_virtually(main()) == 8.0
