"""How long the client pauses, waits and lets others wait: by a virtual clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from headstart import EagerPrecompute, PrecomputeClient, ServiceError, ServiceUnavailable, testing
from headstart._fake.service import FakeService
from headstart._get_or_compute.durations import Durations
from headstart._get_or_compute.outage_log import OutageLog
from headstart._messages import convert
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import Clock, loop_time, run_virtually
from tests.unit.client.messages import expected, values
from tests.unit.client.virtual_channel import DAY, Channel, use

RESULTS = convert.results_from(values({"a": expected(1.0, 1.0)}))


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    made = Channel()
    use(made, monkeypatch)
    return made


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
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    outage = OutageLog(clock)
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
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
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
    "DeletePrecompute": lambda client, more: client.delete("k", **more),
    "TouchPrecompute": lambda client, more: client.touch("k", **more),
    "CreateRunToken": lambda client, more: client.create_run_token("k", **more),
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
                await fake.until_change(None, float("inf"))
                woken.append(loop_time())

        watching = asyncio.create_task(watch())
        for _ in range(3):
            await asyncio.sleep(1.0)
            fake.note_change()
        await asyncio.sleep(1.0)
        watching.cancel()
        await asyncio.wait({watching})
        return woken

    assert run_virtually(wait()) == [1.0, 2.0, 3.0]
