"""How long the client pauses, waits and lets others wait: by a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from headstart import (
    EagerPrecompute,
    PrecomputeClient,
    ServiceError,
    ServiceUnavailable,
    _channels,
    _connection,
    _convert,
    _eager,
    _live,
    _outage,
    _watch,
    testing,
)
from headstart._durations import Durations
from headstart._errors import Incomplete
from headstart._fake_service import FakeService
from headstart._graph import Fallbacks
from headstart._live import Computation, Experience
from headstart._results import Results
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import Clock, run_virtually
from tests.unit.client.messages import run
from tests.unit.client.test_client_get_or_compute import expected, values

DAY = 86_400.0


def loop_time() -> float:
    return asyncio.get_running_loop().time()


class Channel:
    """A channel to nobody, for either kind of client: a test plays how each call ends."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, float]] = []
        """Each call's method, request and timeout."""
        self.connects_in = 0.0
        self.answer: Callable[[str, Any], Awaitable[Any]] = self.refuse
        self.opened = 0

    def open(self, *_: Any, **__: Any) -> Channel:
        self.opened += 1
        return self

    @property
    def limits(self) -> list[tuple[str, float]]:
        return [(name, round(limit, 6)) for name, _, limit in self.calls]

    async def refuse(self, name: str, request: Any) -> Any:
        raise ServiceError("noted")

    def unary_unary(self, path: str, **_: Any) -> Any:
        name = path.rpartition("/")[2]

        async def call(request: Any, *, timeout: float, metadata: Any) -> Any:  # noqa: ASYNC109
            self.calls.append((name, request, timeout))
            return await self.answer(name, request)

        return call

    def unary_stream(self, path: str, **_: Any) -> Any:
        return lambda request, metadata: None

    def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:
        connected = self.connects_in <= 0.0
        return grpc.ChannelConnectivity.READY if connected else grpc.ChannelConnectivity.CONNECTING

    async def wait_for_state_change(self, state: grpc.ChannelConnectivity) -> None:
        await asyncio.sleep(self.connects_in)
        self.connects_in = 0.0

    async def close(self, grace: float | None = None) -> None:
        pass


def use(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients open this channel, and let their clock be the loop's."""
    monkeypatch.setattr(grpc.aio, "insecure_channel", channel.open)
    for module in (_channels, _connection, _eager, _live, _watch):
        clock = SimpleNamespace(monotonic=loop_time, perf_counter=loop_time)
        monkeypatch.setattr(module, "time", clock)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    made = Channel()
    use(made, monkeypatch)
    return made


# Watching


CUT = ServiceUnavailable("cut")


class Watched(Channel):
    """A channel whose every stream lives for so many seconds and brings nothing."""

    def __init__(self, lives: float = 0.0, error: Exception | None = CUT) -> None:
        super().__init__()
        self.watches: list[float] = []
        self.lives = lives
        self.error = error
        self.messages: list[pb.WatchResultsResponse] = []
        self.left = 0

    def unary_stream(self, path: str, **_: Any) -> Any:
        def call(request: Any, *, metadata: Any) -> Watched:
            self.watches.append(loop_time())
            return self

        return call

    async def read(self) -> Any:
        if self.messages:
            return self.messages.pop()
        await asyncio.sleep(self.lives)
        if self.error is None:
            return grpc.aio.EOF
        raise self.error

    def cancel(self) -> None:
        self.left += 1

    @property
    def pauses(self) -> list[float]:
        return [round(b - a - self.lives, 6) for a, b in pairwise(self.watches)]


async def watched_to_its_end(client: PrecomputeClient) -> None:
    async with asyncio.timeout(DAY):
        with pytest.raises(ServiceUnavailable, match=r"^cut$|ended before the run did"):
            async for _ in client.watch_results("k"):
                pass


async def watched_by_a_client() -> None:
    async with PrecomputeClient("localhost:1") as client:
        await watched_to_its_end(client)


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (None, [0.2, 0.4, 0.8, 1.6, 3.0]),
        (CUT, [0.2, 0.4, 0.8, 1.6, 3.0]),
        (ServiceUnavailable("cut", 1.0), [1.0, 1.0, 1.0, 1.6, 3.0]),
        (ServiceUnavailable("cut", 60.0), [3.0] * 5),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_watch_that_brings_nothing_ends_after_six_tries_and_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, which: int, error: Exception | None, pauses: list[float]
) -> None:
    # Every random number is the least, 0, or the largest, 1, that it may be.
    monkeypatch.setattr(_watch.random, "uniform", lambda *ends: ends[which])
    channel = Watched(error=error)
    use(channel, monkeypatch)
    run_virtually(watched_by_a_client())
    share = (0.5, 1.0)[which]
    assert channel.pauses == [pytest.approx(pause * share) for pause in pauses]
    assert channel.left == 6


def test_streams_that_lived_for_more_than_five_seconds_were_healthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def watch() -> None:
        client = PrecomputeClient("localhost:1")
        watching = asyncio.create_task(watched_to_its_end(client))
        await asyncio.sleep(100.0)
        assert not watching.done()
        await client.close()
        await watching

    monkeypatch.setattr(_watch.random, "uniform", lambda *ends: ends[1])
    healthy, short = Watched(lives=5.01), Watched(lives=4.99)
    use(healthy, monkeypatch)
    run_virtually(watch())
    assert set(healthy.pauses) == {0.2}
    use(short, monkeypatch)
    run_virtually(watched_by_a_client())
    assert len(short.watches) == 6


@pytest.mark.parametrize(
    ("silent", "messages", "channels"), [(0.9, 0, 1), (1.1, 0, 2), (1.1, 1, 1)]
)
def test_a_watch_that_got_nothing_for_a_second_leaves_its_channel(
    monkeypatch: pytest.MonkeyPatch, silent: float, messages: int, channels: int
) -> None:
    async def answer(name: str, request: Any) -> Any:
        return pb.GetStatsResponse()

    async def watch() -> None:
        async with PrecomputeClient("localhost:1") as client:
            await client.get_stats()
            await asyncio.sleep(1.0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(silent):
                    async for _ in client.watch_results("k"):
                        pass
            await client.get_stats()

    channel = Watched(lives=DAY)
    channel.answer = answer
    under_way = run(pb.PRECOMPUTE_STATUS_PENDING)
    channel.messages = [pb.WatchResultsResponse(results=under_way)] * messages
    use(channel, monkeypatch)
    run_virtually(watch())
    assert channel.opened == channels


# Reports that outlast their call


class Reported(Channel):
    """A channel to a run whose steps are all pending, and to reports that a test lets end."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self.play
        self.go = asyncio.Event()
        self.ended: list[bool] = []
        """For each report that has ended, whether it was answered."""
        self.error: Exception | None = None

    async def play(self, name: str, request: Any) -> Any:
        if name == "GetResults":
            return values({step: pb.StepReport(state=pb.STEP_STATE_PENDING) for step in STEPS})
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append(False)
            raise
        self.ended.append(True)
        if self.error is not None:
            raise self.error
        return pb.ReportStepResponse(accepted=True)

    @property
    def reports(self) -> list[float]:
        return [limit for name, limit in self.limits if name == "ReportStep"]


STEPS = [f"step-{number}" for number in range(17)]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Reported:
    made = Reported()
    use(made, monkeypatch)
    return made


async def hand_back(
    client: PrecomputeClient, steps: Sequence[str] = STEPS[:1], value: Any = "x", took: float = 0.0
) -> None:
    """Compute steps, and begin to report them."""

    async def compute() -> Any:
        await asyncio.sleep(took)
        return value

    await client.get_or_compute("k", 10.0, dict.fromkeys(steps, compute), report=True)
    await asyncio.sleep(0)


def test_sixteen_reports_at_most_are_under_way_each_for_two_seconds(reported: Reported) -> None:
    async def report() -> None:
        async with PrecomputeClient("localhost:1") as client:
            await hand_back(client, STEPS)
            assert reported.reports == [2.0] * 16
            reported.go.set()
            await asyncio.sleep(0.001)
            assert reported.ended == [True] * 16
            await hand_back(client)
            assert len(reported.reports) == 17, "there is room again"

    run_virtually(report())


def test_a_closed_client_begins_no_report(
    reported: Reported, caplog: pytest.LogCaptureFixture
) -> None:
    async def report() -> None:
        client = PrecomputeClient("localhost:1")
        computing = asyncio.create_task(hand_back(client, took=1.0))
        await asyncio.sleep(0.5)
        await client.close()
        await computing

    run_virtually(report())
    assert reported.reports == []
    assert caplog.records == []


@pytest.mark.parametrize(("after", "takes"), [(0.49, 0.49), (0.51, 0.5)])
def test_reports_have_half_a_second_when_their_client_ends(
    reported: Reported, after: float, takes: float
) -> None:
    async def report() -> float:
        async with PrecomputeClient("localhost:1") as client:
            await hand_back(client)
            asyncio.get_running_loop().call_later(after, reported.go.set)
            began = loop_time()
        return round(loop_time() - began, 6)

    assert run_virtually(report()) == takes
    assert reported.ended == [after == takes]


@pytest.mark.parametrize(
    ("error", "value", "level"),
    [(ServiceError("no"), "x", "DEBUG"), (None, object(), "WARNING")],
)
def test_a_report_that_fails_is_logged_and_nothing_else(
    reported: Reported,
    error: Exception | None,
    value: Any,
    level: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def report() -> None:
        async with PrecomputeClient("localhost:1") as client:
            await hand_back(client, value=value)

    reported.go.set()
    reported.error = error
    with caplog.at_level(logging.DEBUG, "headstart"):
        run_virtually(report())
    [record] = caplog.records
    assert record.levelname == level
    assert f"step {STEPS[0]} of {run().key}" in record.getMessage()


@pytest.mark.parametrize("field", ["deadline", "budget"])
@pytest.mark.parametrize("value", [0.0, -1.0, DAY * 1.001, float("nan")])
def test_a_deadline_and_a_budget_are_more_than_nothing_and_at_most_a_day(
    reported: Reported, field: str, value: float
) -> None:
    async def compute(**times: Any) -> Any:
        async with PrecomputeClient("localhost:1") as client:
            return await client.get_or_compute("k", fallback={STEPS[0]: now}, **times)

    async def now() -> str:
        return "live"

    times = {"deadline": 1.0, "budget": 0.1}
    with pytest.raises(ValueError, match=f"^{field} must be more than 0 and at most 86400 s"):
        run_virtually(compute(**times | {field: value}))
    assert run_virtually(compute(**times | {field: DAY})).values == {STEPS[0]: "live"}


# What get_or_compute asks

RESULTS = _convert.results_from(values({"a": expected(1.0, 1.0)}))


class Asked:
    """Notes what the service is asked; answers that step `a` is expected in a while."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.calls: list[tuple[float, tuple[str, ...], float]] = []
        self.experience = Experience()
        self._hangs = hangs

    async def get(self, *, wait: float, required_steps: Sequence[str], timeout: float) -> Results:  # noqa: ASYNC109
        self.calls.append((wait, tuple(required_steps), timeout))
        await asyncio.sleep(wait)
        if self._hangs:
            await asyncio.sleep(DAY)
        return RESULTS

    async def compute(
        self, fallback: Callable[[], Awaitable[Any]], deadline: float, budget: float = 0.025
    ) -> Any:
        computation = Computation(
            self.get,
            Fallbacks({"a": fallback}),
            self.experience,
            key="k",
            deadline=deadline,
            budget=budget,
            min_revision=0,
            hand_back=None,
            spawn=lambda _: None,
        )
        return await computation.run(("a",))


@pytest.fixture
def _virtual_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart._live.time", SimpleNamespace(perf_counter=loop_time))


@pytest.mark.usefixtures("_virtual_live")
def test_an_answer_may_take_a_second_behind_its_wait_and_no_wait_is_too_long() -> None:
    async def forever() -> None:
        await asyncio.sleep(DAY)

    async def asked(deadline: float) -> list[Any]:
        service = Asked()
        with pytest.raises(Incomplete):
            await service.compute(forever, deadline)
        return service.calls

    assert run_virtually(asked(0.5)) == [(0.0, (), 1.0), (0.5, ("a",), 1.0)]
    assert run_virtually(asked(1000.0)) == [
        (0.0, (), 1000.0),
        (600.0, ("a",), 1.0),
        (400.0, ("a",), 1.0),
    ]


@pytest.mark.usefixtures("_virtual_live")
@pytest.mark.parametrize(("budget", "deadline", "begins"), [(0.025, 10.0, 0.025), (5.0, 2.0, 2.0)])
def test_computing_begins_after_the_budget_and_no_later_than_the_deadline(
    budget: float, deadline: float, begins: float
) -> None:
    begun: list[float] = []

    async def compute() -> str:
        begun.append(loop_time())
        return "live"

    async def asked() -> Any:
        service = Asked(hangs=True)
        began = loop_time()
        try:
            computed = await service.compute(compute, deadline, budget)
        except Incomplete as error:
            computed = error.computed
        return computed, loop_time() - began, service

    computed, took, service = run_virtually(asked())
    assert took == pytest.approx(begins)
    assert begun == [pytest.approx(begins)]
    if begins < deadline:
        assert computed.reasons == {"a": "the service did not answer within 25 ms"}
        assert computed.seconds == {"a": pytest.approx(begins)}
    assert service.experience.breaker._failures == 1


@pytest.mark.usefixtures("_virtual_live")
def test_a_deadline_that_the_first_answer_has_used_up_is_over() -> None:
    async def forever() -> None:
        await asyncio.sleep(DAY)

    async def asked() -> float:
        with pytest.raises(Incomplete, match="no value within 2 s of k: a"):
            await Asked(hangs=True).compute(forever, 2.0, 5.0)
        return loop_time()

    assert run_virtually(asked()) == 2.0


@pytest.mark.usefixtures("_virtual_live")
def test_the_first_error_of_a_fallback_ends_the_call_and_what_still_runs() -> None:
    stopped: list[float] = []

    async def fails() -> str:
        await asyncio.sleep(1.0)
        raise KeyError("a")

    async def forever() -> None:
        try:
            await asyncio.sleep(DAY)
        finally:
            stopped.append(loop_time())

    async def asked() -> None:
        computation = Computation(
            Asked(hangs=True).get,
            Fallbacks({"a": fails, "b": forever}),
            Experience(),
            key="k",
            deadline=1000.0,
            budget=0.25,
            min_revision=0,
            hand_back=None,
            spawn=lambda _: None,
        )
        with pytest.raises(KeyError) as failed:
            await computation.run(("a", "b"))
        assert failed.value.__notes__ == ["in the fallback of step a of k"]
        assert loop_time() == 1.25

    run_virtually(asked())
    assert stopped == [1.25]


# What is remembered


def test_the_last_31_durations_of_1024_steps_are_remembered() -> None:
    durations = Durations()
    for seconds in range(40):
        durations.note("p", "step", float(seconds))
    assert durations.expected("p", "step") == 24.0, "the median of the last 31"
    for number in range(511):
        durations.note("p", f"other-{number}", 1.0)
    assert durations.expected("p", "step") == 24.0
    durations.note("p", "one too many", 1.0)
    assert durations.expected("p", "step") is None
    assert durations.expected("p", "other-0") == 1.0


def test_what_was_used_last_is_forgotten_last() -> None:
    durations = Durations()
    for number in range(512):
        durations.note("p", f"{number}", 1.0)
    durations.note("p", "0", 3.0)
    durations.note("p", "new", 1.0)
    assert durations.expected("p", "0") == 2.0
    assert durations.expected("p", "1") is None


def test_a_call_that_failed_a_minute_ago_silences_the_log_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(_outage, "time", SimpleNamespace(monotonic=clock))
    outage = _outage.OutageLog()
    with caplog.at_level(logging.INFO, "headstart"):
        for later in (0.0, 60.0, 60.1):
            clock.now += later
            outage.failed("start", ServiceError("no"))
        clock.now += 60.0
        outage.answered("get")
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        clock.now += 0.1
        outage.answered("get")
        outage.answered("get")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2 + ["INFO"]


# The facade


@pytest.mark.parametrize(("asked", "wait"), [(-1.0, 0.0), (0.0, 0.0), (2.5, 2.5), (700.0, 600.0)])
def test_the_facade_gives_each_call_its_time_less_that_of_connecting(
    channel: Channel, asked: float, wait: float
) -> None:
    async def call() -> None:
        precompute = EagerPrecompute("localhost:1")
        for calls in (
            lambda: precompute.start_bridging_precompute("k", "a", "b", "human"),
            lambda: precompute.get_precomputed_results("k", asked),
        ):
            channel.connects_in = 0.125
            assert await calls() is None
        precompute.close()

    run_virtually(call())
    assert channel.limits == [("StartPrecompute", 0.875), ("GetResults", 0.375 + wait)]
    assert channel.calls[1][1].wait.ToTimedelta() == timedelta(seconds=wait)


def test_the_facade_gives_up_after_three_tenths_of_a_second_of_connecting(channel: Channel) -> None:
    async def call() -> float:
        precompute = EagerPrecompute("localhost:1")
        channel.connects_in = DAY
        assert await precompute.get_precomputed_results("k", DAY) is None
        precompute.close()
        return loop_time()

    assert run_virtually(call()) == pytest.approx(0.3)
    assert channel.calls == []


def test_the_facades_blocking_calls_take_four_tenths_of_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []
    closed: list[bool] = []

    def opened(*_: Any, **__: Any) -> Any:
        def call(request: Any, *, timeout: float, metadata: Any) -> Any:
            limits.append(timeout)
            return pb.GetStatsResponse(total_cached=2, active_tasks=1, status_counts={"pending": 1})

        return SimpleNamespace(
            unary_unary=lambda *_, **__: call,
            unary_stream=lambda *_, **__: call,
            close=lambda: closed.append(True),
        )

    monkeypatch.setattr(grpc, "insecure_channel", opened)
    monkeypatch.setattr(_connection, "time", SimpleNamespace(monotonic=lambda: 0.0))
    precompute = EagerPrecompute("localhost:1")
    assert precompute.get_stats() == {
        "total_cached": 2,
        "active_tasks": 1,
        "status_counts": {"pending": 1},
    }
    assert limits == [0.4]
    precompute.close()
    precompute.close()
    assert closed == [True]


# Every call's own time


CALLS: dict[str, Callable[[PrecomputeClient, Any], Awaitable[Any]]] = {
    "StartPrecompute": lambda client, more: client.start("k", "p", {}, **more),
    "StartPrecompute of a game": lambda client, more: client.start_bridging("k", "a", "b", **more),
    "GetResults": lambda client, more: client.get_results("k", **more),
    "GetStatus": lambda client, more: client.get_status("k", **more),
    "CancelPrecompute": lambda client, more: client.cancel("k", **more),
    "ListPrecomputes": lambda client, more: client.list_page(**more),
    "ListPrecomputes of all pages": lambda client, more: anext(client.list(**more)),
    "ListPipelines": lambda client, more: client.list_pipelines(**more),
    "GetStats": lambda client, more: client.get_stats(**more),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_call_takes_its_own_time_or_the_clients(channel: Channel, name: str) -> None:
    async def call() -> None:
        async with PrecomputeClient("localhost:1", timeout=7.0) as client:
            for more in ({}, {"timeout": 3.0}):
                with pytest.raises(ServiceError, match="noted"):
                    await CALLS[name](client, more)

    run_virtually(call())
    method = name.partition(" ")[0]
    assert channel.limits == [(method, 7.0), (method, 3.0)]


@pytest.mark.parametrize(("more", "limit"), [({}, 7.0), ({"timeout": 3.0}, 3.0)])
def test_connecting_takes_its_own_time_or_the_clients(
    channel: Channel, more: dict[str, float], limit: float
) -> None:
    async def connect() -> float:
        async with PrecomputeClient("localhost:1", timeout=7.0) as client:
            channel.connects_in = DAY
            with pytest.raises(ServiceUnavailable, match=f"within {limit:g} s"):
                await client.connect(**more)
            return loop_time()

    assert run_virtually(connect()) == pytest.approx(limit)


def test_made_up_results_have_the_times_of_a_run_of_two_seconds() -> None:
    made = testing.completed_results("k")
    began = made.created_at
    assert began is not None
    assert made.started_at == began
    assert made.completed_at == began + timedelta(seconds=2)
    assert made.expires_at == began + timedelta(minutes=30, seconds=2)
    assert {report.elapsed for report in made.steps.values()} == {timedelta(seconds=1)}
    assert {report.attempts for report in made.steps.values()} == {1}


def test_the_fake_service_wakes_who_waits_at_each_change_and_no_more() -> None:
    async def wait() -> list[float]:
        fake = FakeService(lambda *_: RESULTS, None)  # type: ignore[arg-type]
        woken: list[float] = []

        async def watch() -> None:
            while len(woken) < 9:
                await fake._until_change(None, float("inf"))
                woken.append(loop_time())

        watching = asyncio.create_task(watch())
        for _ in range(3):
            await asyncio.sleep(1.0)
            fake._changed()
        await asyncio.sleep(1.0)
        watching.cancel()
        await asyncio.wait({watching})
        return woken

    assert run_virtually(wait()) == [1.0, 2.0, 3.0]
