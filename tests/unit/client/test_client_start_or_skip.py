"""What a start costs its caller that may be skipped, and what becomes of one that is late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from headstart import (
    BlockingClient,
    HeadstartError,
    InvalidRequest,
    PermissionDenied,
    PrecomputeClient,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    StartOutcome,
    Unauthenticated,
    Violation,
)
from headstart._clients.late_starts import LateStarts
from headstart._errors import NotFound
from headstart._get_or_compute.budgeted_call import BUDGET, BudgetedCall, Experience
from headstart._get_or_compute.circuit_breaker import Breaker
from headstart.testing import FakeServer, fake_server
from tests.support.virtual_time import Clock, run_virtually
from tests.support.waiting import wait_until

PATIENT = 20.0
"""A budget that a busy machine keeps."""
AT_ONCE = 1e-6
"""A budget that no call keeps."""
INPUTS = {"text": "a"}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server({"a": "there"}) as server:
        yield server


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(server.address) as client:
        yield client


# The rule, which get_or_compute shares: on a clock that tests set


class Service:
    """A service whose calls a test lets end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.experience = Experience(breaker=Breaker(self.clock))
        self.calls = 0

    async def ask(self, call: Callable[[], Any], **settings: Any) -> tuple[BudgetedCall, float]:
        """Ask, with the real budget; gives the seconds that its caller waited, too."""

        async def counted() -> Any:
            self.calls += 1
            return await call()

        ask = BudgetedCall(self.experience, "start_or_skip", **settings)
        loop = asyncio.get_running_loop()
        began = loop.time()
        late = await ask.within(BUDGET, counted)
        waited = loop.time() - began
        if late is not None:
            late.cancel()
        return ask, waited


async def hang() -> bool:
    return await asyncio.Event().wait()


def under_way() -> list[asyncio.Task[Any]]:
    """The calls of starts that may be skipped, late ones among them."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "start_or_skip"]


async def settled() -> None:
    """A task needs a few turns to be cancelled."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_service_that_hangs_costs_the_budget_three_times_and_then_nothing() -> None:
    async def main() -> list[float]:
        service = Service()
        waits = [(await service.ask(hang))[1] for _ in range(6)]
        assert service.calls == 3
        service.clock.now += 0.5
        waits.append((await service.ask(hang))[1])
        assert service.calls == 4, "one asks again, for all"
        return waits

    assert run_virtually(main()) == pytest.approx([BUDGET] * 3 + [0.0] * 3 + [BUDGET])


def test_late_answers_that_are_of_use_keep_the_service_asked() -> None:
    async def slow() -> bool:
        await asyncio.sleep(4 * BUDGET)
        return True

    async def main() -> None:
        experience = Experience()
        for _ in range(6):
            late = await BudgetedCall(experience, "start_or_skip").within(BUDGET, slow)
            assert late is not None
            await late
        assert not experience.breaker.open

    run_virtually(main())


@pytest.mark.parametrize("error", [ServiceUnavailable("away"), ServiceError("INTERNAL")])
async def test_errors_open_the_breaker_but_those_that_concern_this_call_alone(
    error: HeadstartError,
) -> None:
    async def fail() -> bool:
        raise error

    service = Service()
    for _ in range(5):
        ask, _ = await service.ask(fail)
    assert (service.calls, service.experience.breaker.open) == (3, True)
    assert "was not asked" in ask.why
    service = Service()
    for _ in range(5):
        ask, _ = await service.ask(fail, of_this_call=(type(error),))
    assert (service.calls, service.experience.breaker.open) == (5, False)
    assert str(error) in ask.why


# The calls


async def test_a_start_in_time_is_what_start_returns(client: PrecomputeClient) -> None:
    started = await client.start_or_skip("k", "text", INPUTS, budget=PATIENT)
    assert started is not None
    assert started.outcome is StartOutcome.STARTED
    game = await client.start_bridging_or_skip("g", "ocean", "forest", budget=PATIENT)
    assert game is not None
    again = await client.start_bridging("g", "ocean", "forest")
    assert (again.outcome, again.revision) == (StartOutcome.REUSED, game.revision)


async def test_arguments_arrive_as_those_of_start(
    server: FakeServer, client: PrecomputeClient
) -> None:
    shared: dict[str, Any] = {"ttl": 60, "restart": True, "request_id": "once", "namespace": "n"}
    shared["expected_need_in"] = 5.0
    game: dict[str, Any] = {"clue_count": 3, "null_sample_count": 7}
    await client.start("k", "text", INPUTS, **shared)
    await client.start_or_skip("k", "text", INPUTS, budget=PATIENT, **shared)
    await client.start_bridging("g", "ocean", "forest", "human", **game, **shared)
    await client.start_bridging_or_skip(
        "g", "ocean", "forest", "human", budget=PATIENT, **game, **shared
    )
    first, second, third, fourth = (
        each.message.SerializeToString() for each in server.seen("StartPrecompute")
    )
    assert (first, third) == (second, fourth)


@pytest.mark.parametrize(
    "error",
    [
        ServiceUnavailable("the store is away", retry_after=1.0),
        ResourceExhausted("full", retry_after=2.0),
        Unauthenticated("who?"),
        PermissionDenied("no"),
        ServiceError("INTERNAL"),
    ],
)
async def test_whatever_is_wrong_with_the_service_is_none(
    server: FakeServer, client: PrecomputeClient, error: HeadstartError
) -> None:
    server.fail(error)
    for _ in range(5):
        assert await client.start_or_skip("k", "text", INPUTS, budget=PATIENT) is None


@pytest.mark.parametrize("where", ["refused", "black_hole"])
async def test_an_absent_service_is_none_and_then_not_asked(
    where: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def live() -> str:
        return "live"

    monkeypatch.setattr(random, "uniform", lambda *_: 1000.0)  # the share of a breaker's pause
    async with PrecomputeClient(request.getfixturevalue(where)) as client:
        for _ in range(5):
            assert await client.start_bridging_or_skip("g", "ocean", "forest") is None
        got = await client.get_or_compute("g", 30.0, {"a": live})
    assert got.reasons == {"a": "the service was not asked: it lately did not answer in time"}
    # gRPC may log, too: its thread reports to the closed loop of a test before.
    logged = [record.levelname for record in caplog.records if record.name == "headstart"]
    assert logged == ["WARNING"]


def test_threads_have_the_same(server: FakeServer, refused: str, black_hole: str) -> None:
    with BlockingClient(server.address) as client:
        assert client.start_or_skip("k", "text", INPUTS, budget=PATIENT) is not None
        assert client.start_bridging_or_skip("g", "ocean", "forest", budget=PATIENT) is not None
        with pytest.raises(InvalidRequest):
            client.start_bridging_or_skip("", "ocean", "forest", budget=PATIENT)
    for address in (refused, black_hole):
        with BlockingClient(address) as client:
            assert client.start_or_skip("k", "text", INPUTS) is None
            assert client.start_bridging_or_skip("g", "ocean", "forest") is None


async def test_mistakes_of_the_caller_are_raised_and_not_logged(
    server: FakeServer, client: PrecomputeClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidRequest, match=r"bridging\.anchor"):
        await client.start_bridging_or_skip("g", "", "forest", budget=PATIENT)
    with pytest.raises(InvalidRequest, match="recipient_type"):
        await client.start_bridging_or_skip("g", "ocean", "forest", "robot")
    with pytest.raises(TypeError):
        await client.start_or_skip(7, "text", INPUTS)  # type: ignore[arg-type]
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="budget must be more than 0"):
            await client.start_or_skip("k", "text", INPUTS, budget=budget)
    server.fail(InvalidRequest("no", [Violation("custom.pipeline", "unknown")]))
    with pytest.raises(InvalidRequest, match=r"custom\.pipeline: unknown"):
        await client.start_or_skip("k", "text", INPUTS, budget=PATIENT)
    assert [record for record in caplog.records if record.name == "headstart"] == []
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.start_or_skip("k", "text", INPUTS)


async def test_an_overloaded_queue_stops_no_reads(
    server: FakeServer, client: PrecomputeClient
) -> None:
    await client.start("ready", "text", INPUTS)
    server.fail(ResourceExhausted("full", retry_after=2.0), method="StartPrecompute")
    for _ in range(5):
        assert await client.start_or_skip("k", "text", INPUTS, budget=PATIENT) is None

    async def live() -> str:
        return "live"

    got = await client.get_or_compute("ready", 30.0, {"a": live}, budget=PATIENT)
    assert got.sources == {"a": "ready"}
    assert len(server.seen("StartPrecompute")) == 6


async def test_a_late_start_goes_on_behind_the_call_and_behind_closing(
    server: FakeServer, client: PrecomputeClient
) -> None:
    assert await client.start_or_skip("k", "text", INPUTS, budget=AT_ONCE) is None
    await client.close()  # gives it half a second
    async with PrecomputeClient(server.address) as other:
        assert (await other.get_results("k")).custom == {"a": "there"}


@pytest.mark.parametrize("newer", ["start", "start_or_skip", "skipped"])
async def test_a_newer_start_of_the_key_cancels_a_late_one(
    server: FakeServer, client: PrecomputeClient, newer: str
) -> None:
    server.slow(PATIENT, method="StartPrecompute")
    assert await client.start_or_skip("k", "text", {"text": "old"}, budget=AT_ONCE) is None
    [late] = under_way()
    await wait_until(lambda: server.seen("StartPrecompute"))
    server.recover()
    if newer == "start":
        await client.start("k", "text", {"text": "new"})
    elif newer == "start_or_skip":
        assert await client.start_or_skip("k", "text", {"text": "new"}, budget=PATIENT)
    else:
        server.fail(ServiceUnavailable("away"), method="StartPrecompute")
        for _ in range(3):
            assert await client.start_or_skip("other", "text", INPUTS, budget=PATIENT) is None
        assert await client.start_or_skip("k", "text", {"text": "new"}) is None
        server.recover()
    await asyncio.wait([late])
    assert late.cancelled()
    if newer == "skipped":
        with pytest.raises(NotFound):
            await client.get_results("k")
    else:
        assert (await client.get_results("k")).revision == 1


async def test_a_cancelled_caller_leaves_no_start_behind(
    server: FakeServer, client: PrecomputeClient
) -> None:
    server.slow(PATIENT, method="StartPrecompute")
    calling = asyncio.create_task(client.start_or_skip("k", "text", INPUTS, budget=PATIENT))
    await wait_until(lambda: server.seen("StartPrecompute"))
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    await settled()
    assert under_way() == []


async def test_of_calls_beside_each_other_one_late_start_of_a_key_goes_on(
    server: FakeServer,
) -> None:
    server.slow(300.0, method="StartPrecompute")
    async with PrecomputeClient(server.address, timeout=300.0) as client:
        calls = [client.start_or_skip("k", "text", INPUTS, budget=AT_ONCE) for _ in range(50)]
        assert await asyncio.gather(*calls) == [None] * 50
        await settled()
        assert len(under_way()) == 1


@pytest.mark.parametrize("how", ["late", "in time", "plain"])
async def test_a_start_that_becomes_late_behind_a_newer_one_is_given_up(
    server: FakeServer, how: str
) -> None:
    async with PrecomputeClient(server.address, timeout=300.0) as client:
        server.slow(300.0, method="StartPrecompute")
        older = asyncio.create_task(client.start_or_skip("k", "text", INPUTS, budget=1.0))
        await wait_until(lambda: server.seen("StartPrecompute"))
        first = under_way()
        if how != "late":
            server.slow(0.0, method="StartPrecompute")
        newer = {"text": "b"}
        if how == "plain":
            await client.start("k", "text", newer)
        else:
            budget = AT_ONCE if how == "late" else PATIENT
            await client.start_or_skip("k", "text", newer, budget=budget)
        kept = [task for task in under_way() if how == "late" and task not in first]
        assert await older is None
        await settled()
        assert under_way() == kept
        assert len(kept) == (how == "late")


async def test_a_start_is_forgotten_when_its_call_has_ended() -> None:
    starts = LateStarts()
    go = asyncio.Event()

    async def call() -> None:
        await go.wait()

    in_time, late, outdated = (starts.begin(("n", key)) for key in "abc")
    starts.end(in_time)
    late_call, old_call = asyncio.create_task(call()), asyncio.create_task(call())
    for start, task in ((late, late_call), (outdated, old_call)):
        starts.leave(start, task, closed=False)
        starts.end(start)
    assert len(starts) == 2
    newer = starts.begin(("n", "c"))
    starts.end(newer)
    await asyncio.wait([old_call])
    assert old_call.cancelled()
    assert len(starts) == 1
    go.set()
    await late_call
    await settled()
    assert len(starts) == 0


async def test_of_late_starts_128_go_on_at_a_time() -> None:
    starts = LateStarts()
    calls = [asyncio.create_task(asyncio.Event().wait()) for _ in range(130)]
    for number, task in enumerate(calls):
        starts.leave(starts.begin(("n", f"{number}")), task, closed=False)  # type: ignore[arg-type]
    await settled()
    assert [task.cancelled() for task in calls] == [False] * 128 + [True] * 2
    for task in calls:
        task.cancel()
    await settled()
