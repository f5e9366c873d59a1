"""How long the client pauses, waits and lets others wait: by a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import (
    EagerPrecompute,
    PrecomputeClient,
    ServiceError,
    ServiceUnavailable,
    _convert,
    _eager,
    _outage,
    _watch,
    testing,
)
from headstart._durations import Durations
from headstart._errors import Incomplete
from headstart._fake_service import FakeService
from headstart._get_or_compute import GetsOrComputes
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


# Watching


class Watched:
    """A connection whose every stream lives for so many seconds and brings nothing."""

    def __init__(self, lives: float = 0.0, retry_after: float | None = None) -> None:
        self.opened: list[float] = []
        self.closed = False
        self.stub = self
        self.endpoint = SimpleNamespace(metadata=lambda: None)
        self.lives = lives
        self._error = ServiceUnavailable("cut", retry_after)
        self.left = 0

    def WatchResults(self, request: Any, metadata: Any) -> Any:  # noqa: N802  # gRPC's name
        self.opened.append(loop_time())

        async def messages() -> AsyncIterator[Any]:
            await asyncio.sleep(self.lives)
            raise self._error
            yield

        return _Stream(self, messages())

    @contextmanager
    def translated(self) -> Iterator[None]:
        yield

    @property
    def pauses(self) -> list[float]:
        return [round(b - a - self.lives, 6) for a, b in pairwise(self.opened)]


class _Stream:
    """What gRPC's call is to a watch: messages, and a way to end it."""

    def __init__(self, watched: Watched, messages: AsyncIterator[Any]) -> None:
        self._watched, self._messages = watched, messages

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages

    def cancel(self) -> None:
        self._watched.left += 1


async def watched_to_its_end(connection: Watched, most: float = DAY) -> None:
    async with asyncio.timeout(most):
        with pytest.raises(ServiceUnavailable, match="cut"):
            async for _ in _watch.watch(connection, pb.WatchResultsRequest()):  # type: ignore[arg-type]
                pass


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make every random number the least, 0, or the largest, 1, that it may be."""

    def choose(which: int) -> None:
        monkeypatch.setattr(_watch.random, "uniform", lambda *ends: ends[which])

    monkeypatch.setattr(_watch, "time", SimpleNamespace(monotonic=loop_time))
    choose(1)
    return choose


@pytest.mark.parametrize(
    ("retry_after", "pauses"),
    [
        (None, [0.2, 0.4, 0.8, 1.6, 3.0]),
        (1.0, [1.0, 1.0, 1.0, 1.6, 3.0]),
        (60.0, [3.0] * 5),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_watch_that_brings_nothing_ends_after_six_tries_and_growing_pauses(
    jitter: Any, which: int, retry_after: float | None, pauses: list[float]
) -> None:
    jitter(which)
    connection = Watched(retry_after=retry_after)
    run_virtually(watched_to_its_end(connection))
    share = (0.5, 1.0)[which]
    assert connection.pauses == [pytest.approx(pause * share) for pause in pauses]
    assert connection.left == 6


def test_streams_that_lived_for_more_than_five_seconds_were_healthy(jitter: Any) -> None:
    async def watch() -> list[float]:
        connection = Watched(lives=5.01)
        watching = asyncio.create_task(watched_to_its_end(connection))
        await asyncio.sleep(100.0)
        assert not watching.done()
        connection.closed = True
        await watching
        return connection.pauses

    assert set(run_virtually(watch())) == {0.2}
    short = Watched(lives=4.99)
    run_virtually(watched_to_its_end(short))
    assert len(short.opened) == 6


def test_a_closed_client_is_not_connected_again(jitter: Any) -> None:
    connection = Watched()
    connection.closed = True
    run_virtually(watched_to_its_end(connection))
    assert len(connection.opened) == 1


# Reports that outlast their call


class Reporting(GetsOrComputes):
    """The part of a client that hands values back, with a connection that tests let go."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float] = []
        self.open = asyncio.Event()
        self.ended = 0
        self.error: Exception | None = None
        self._namespace = ""
        self._connection: Any = self
        self.closed = False
        self.stub = SimpleNamespace(ReportStep="ReportStep", GetResults="GetResults")

    async def call(self, method: Any, request: Any, limit: float) -> Any:
        self.limits.append(limit)
        try:
            if method == "ReportStep":
                await self.open.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.ended += 1
        return pb.ReportStepResponse(accepted=True) if method == "ReportStep" else values()

    def spawn(self, results: Results) -> asyncio.Task[bool] | None:
        return self._spawn(self._report(results, "a", "x", 1.0))


RESULTS = _convert.results_from(values({"a": expected(1.0, 1.0)}))


def test_sixteen_reports_at_most_are_under_way_each_for_two_seconds() -> None:
    async def report() -> None:
        client = Reporting()
        made = [client.spawn(RESULTS) for _ in range(17)]
        assert [task is None for task in made] == [False] * 16 + [True]
        await asyncio.sleep(0)
        assert client.limits == [2.0] * 16
        client.open.set()
        assert await asyncio.gather(*(task for task in made if task)) == [True] * 16
        await asyncio.sleep(0)
        assert client.spawn(RESULTS) is not None, "there is room again"
        client.closed = True
        assert client.spawn(RESULTS) is None
        await client._end_reports()

    run_virtually(report())


def test_reports_have_half_a_second_when_their_client_ends() -> None:
    async def report(after: float) -> tuple[int, float]:
        client = Reporting()
        task = client.spawn(RESULTS)
        assert task is not None
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(after, client.open.set)
        began = loop_time()
        await client._end_reports()
        assert task.done()
        assert task.cancelled() is (after > 0.5)
        return client.ended, round(loop_time() - began, 6)

    assert run_virtually(report(0.49)) == (1, 0.49)
    assert run_virtually(report(0.51)) == (1, 0.5)


@pytest.mark.parametrize(
    ("error", "value", "level"),
    [(ServiceError("no"), "x", "DEBUG"), (None, object(), "WARNING")],
)
def test_a_report_that_fails_is_logged_and_nothing_else(
    error: Exception | None, value: Any, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def report() -> bool:
        client = Reporting()
        client.open.set()
        client.error = error
        return await client._report(RESULTS, "a", value, 1.0)

    with caplog.at_level(logging.DEBUG, "headstart"):
        assert run_virtually(report()) is False
    [record] = caplog.records
    assert record.levelname == level
    assert f"step a of {RESULTS.key}" in record.getMessage()


@pytest.mark.parametrize("field", ["deadline", "budget"])
@pytest.mark.parametrize("value", [0.0, -1.0, DAY * 1.001, float("nan")])
def test_a_deadline_and_a_budget_are_more_than_nothing_and_at_most_a_day(
    field: str, value: float
) -> None:
    async def compute(**times: Any) -> Any:
        return await Reporting().get_or_compute("k", fallback={"a": now}, **times)

    async def now() -> str:
        return "live"

    times = {"deadline": 1.0, "budget": 0.1}
    with pytest.raises(ValueError, match=f"^{field} must be more than 0 and at most 86400 s"):
        run_virtually(compute(**times | {field: value}))
    assert run_virtually(compute(**times | {field: DAY})).values == {"a": "live"}


# What get_or_compute asks


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


class Facade:
    """Stands for the client of `EagerPrecompute`: connecting takes a while, calls are noted."""

    def __init__(self) -> None:
        self.connects: list[float] = []
        self.calls: list[dict[str, Any]] = []

    async def connect(self, timeout: float) -> None:  # noqa: ASYNC109
        self.connects.append(timeout)
        await asyncio.sleep(0.125)

    async def start_bridging(self, *words: Any, timeout: float) -> Any:  # noqa: ASYNC109
        self.calls.append({"timeout": timeout})
        return SimpleNamespace(status="pending")

    async def get_results(self, key: str, **times: float) -> Results:
        self.calls.append(times)
        return _convert.results_from(run())


@pytest.mark.parametrize(("asked", "wait"), [(-1.0, 0.0), (0.0, 0.0), (2.5, 2.5), (700.0, 600.0)])
def test_the_facade_gives_each_call_its_time_less_that_of_connecting(
    monkeypatch: pytest.MonkeyPatch, asked: float, wait: float
) -> None:
    monkeypatch.setattr(_eager, "time", SimpleNamespace(monotonic=loop_time))
    client = Facade()

    async def call() -> None:
        precompute = EagerPrecompute("localhost:1")
        precompute._new_client = lambda: client  # type: ignore[assignment,return-value]
        assert await precompute.start_bridging_precompute("k", "a", "b", "human") == "pending"
        assert await precompute.get_precomputed_results("k", asked) is not None

    run_virtually(call())
    assert client.connects == [0.3, 0.3]
    assert client.calls == [
        {"timeout": pytest.approx(0.875)},
        {"wait": wait, "timeout": pytest.approx(0.375)},
    ]


def test_the_facades_blocking_calls_take_four_tenths_of_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    def method(request: Any, *, timeout: float, metadata: Any) -> Any:
        limits.append(timeout)
        return pb.GetStatsResponse(total_cached=2, active_tasks=1, status_counts={"pending": 1})

    precompute = EagerPrecompute("localhost:1")
    closed: list[bool] = []
    channel = SimpleNamespace(close=lambda: closed.append(True))
    stub = SimpleNamespace(GetStats=method)
    precompute._blocking = channel, stub  # type: ignore[assignment]
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


class Timed:
    """A connection that notes how long each call may take, and answers none."""

    def __init__(self) -> None:
        self.limits: list[tuple[str, float]] = []
        self.closed = False

        class Stub:
            def __getattr__(self, name: str) -> str:
                return name

        self.stub = Stub()

    async def call(self, method: str, request: Any, limit: float) -> Any:
        self.limits.append((method, limit))
        raise ServiceError("noted")


CALLS: dict[str, Callable[[PrecomputeClient, Any], Awaitable[Any]]] = {
    "StartPrecompute": lambda client, more: client.start("k", "p", {}, **more),
    "StartPrecompute of a game": lambda client, more: client.start_bridging("k", "a", "b", **more),
    "GetResults": lambda client, more: client.get_results("k", **more),
    "GetStatus": lambda client, more: client.get_status("k", **more),
    "CancelPrecompute": lambda client, more: client.cancel("k", **more),
    "ListPrecomputes": lambda client, more: client.list_page(**more),
    "ListPipelines": lambda client, more: client.list_pipelines(**more),
    "GetStats": lambda client, more: client.get_stats(**more),
}


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_takes_its_own_time_or_the_clients(name: str) -> None:
    client = PrecomputeClient("localhost:1", timeout=7.0)
    connection = Timed()
    client._connection = connection  # type: ignore[assignment]
    for more in ({}, {"timeout": 3.0}):
        with pytest.raises(ServiceError, match="noted"):
            await CALLS[name](client, more)
    method = name.partition(" ")[0]
    assert connection.limits == [(method, 7.0), (method, 3.0)]


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
