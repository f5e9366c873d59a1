"""The facade's promise: it never harms its caller, whatever the service does."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from headstart import (
    DeadlineExceeded,
    EagerPrecompute,
    HeadstartError,
    ServiceError,
    ServiceUnavailable,
)
from headstart._get_or_compute.outage_log import OutageLog
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import Fault, hang
from tests.support.virtual_time import Clock, loop_time, run_virtually
from tests.unit.client.virtual_channel import Channel, use

NO_STATS = {"total_cached": 0, "active_tasks": 0, "status_counts": {}}
FOUND = pb.GetResultsResponse(key="abc123", status=pb.PRECOMPUTE_STATUS_COMPLETED)


HANG = 5.0
"""Seconds that no call takes, however busy the machine is, unless it waits for what never comes."""


@pytest.fixture(autouse=True)
def _reset(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "headstart")
    EagerPrecompute.reset_instance()
    yield
    EagerPrecompute.reset_instance()


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "headstart"]


async def assert_all_four_are_none(precompute: EagerPrecompute) -> None:
    assert await precompute.start_bridging_precompute("abc123", "ocean", "forest", "human") is None
    assert await precompute.get_precomputed_results("abc123") is None
    assert precompute.get_status("abc123") is None
    assert precompute.get_stats() == NO_STATS


@pytest.mark.parametrize("away", ["refused", "black_hole"])
async def test_an_absent_service_does_not_cost_the_callers_timeout(
    away: str, request: pytest.FixtureRequest, stopwatch: Any
) -> None:
    precompute = EagerPrecompute.configure(request.getfixturevalue(away))

    # Several rounds: the first connects, later ones meet gRPC while it waits to try again.
    for _ in range(3):
        stopwatch()
        await precompute.start_bridging_precompute("abc123", "ocean", "forest", "haiku")
        assert stopwatch() < HANG
        # A long timeout is for an answer; nobody who could give one is there.
        assert await precompute.get_precomputed_results("abc123", timeout_seconds=30) is None
        assert stopwatch() < HANG
        assert precompute.get_status("abc123") is None
        assert stopwatch() < HANG
        assert precompute.get_stats() == NO_STATS
        assert stopwatch() < HANG


async def test_a_refused_connection_is_not_waited_for(refused: str, stopwatch: Any) -> None:
    precompute = EagerPrecompute.configure(refused)
    await assert_all_four_are_none(precompute)

    stopwatch()
    for _ in range(5):
        await assert_all_four_are_none(precompute)
    assert stopwatch() < HANG


async def test_an_absent_service_is_one_warning_not_one_per_call(
    refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    precompute = EagerPrecompute.configure(refused)

    for _ in range(3):
        await assert_all_four_are_none(precompute)

    assert levels(caplog) == ["WARNING"]
    assert refused in caplog.text


async def test_a_black_hole_is_one_warning_not_one_per_call(
    black_hole: str, caplog: pytest.LogCaptureFixture
) -> None:
    precompute = EagerPrecompute.configure(black_hole)

    for _ in range(2):
        await assert_all_four_are_none(precompute)

    assert levels(caplog) == ["WARNING"]


async def test_a_service_that_hangs_costs_a_little_more_than_the_callers_timeout(
    service: Any, stopwatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for method in ("StartPrecompute", "GetResults", "GetStatus", "GetStats"):
        service.on(method, hang)
    precompute = EagerPrecompute.configure(service.address)

    stopwatch()
    assert await precompute.get_precomputed_results("abc123", timeout_seconds=0.5) is None
    assert 0.5 < stopwatch() < HANG
    await precompute.start_bridging_precompute("abc123", "ocean", "forest", "haiku")
    assert stopwatch() < HANG
    assert precompute.get_status("abc123") is None
    assert stopwatch() < HANG
    assert precompute.get_stats() == NO_STATS
    assert stopwatch() < HANG
    assert levels(caplog) == ["WARNING"]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
async def test_a_service_that_fails_is_none_and_one_warning(
    service: Any, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    for method in ("StartPrecompute", "GetResults", "GetStatus", "GetStats"):
        service.on(method, Fault(code, "broken inside"))
    precompute = EagerPrecompute.configure(service.address)

    for _ in range(3):
        await assert_all_four_are_none(precompute)

    assert levels(caplog) == ["WARNING"]
    assert "broken inside" in caplog.text
    assert len(service.calls) == 12, "no call is retried"


async def test_the_services_return_is_one_info_and_the_next_outage_a_warning_again(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service.on("GetResults", FOUND)
    precompute = EagerPrecompute.configure(service.address)
    assert await precompute.get_precomputed_results("abc123") is not None
    assert levels(caplog) == []

    async def answers() -> bool:
        return await precompute.get_precomputed_results("abc123") is not None

    async def until(*, found: bool) -> None:
        async with asyncio.timeout(10):
            while await answers() is not found:  # noqa: ASYNC110  (the facade tells no one)
                await asyncio.sleep(0.01)

    await asyncio.to_thread(service.stop)
    await until(found=False)
    await until(found=False)
    await asyncio.to_thread(service.start)
    await until(found=True)
    await until(found=True)
    assert levels(caplog) == ["WARNING", "INFO"]

    await asyncio.to_thread(service.stop)
    await until(found=False)
    assert levels(caplog) == ["WARNING", "INFO", "WARNING"]


async def test_a_request_that_the_service_refuses_is_a_warning_each_time(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    violations = [("key", "must not be empty")]
    service.on(
        "StartPrecompute", Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", violations=violations)
    )
    service.on("GetStatus", Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", violations=violations))
    precompute = EagerPrecompute.configure(service.address)

    assert await precompute.start_bridging_precompute("", "ocean", "forest", "human") is None
    assert await precompute.start_bridging_precompute("", "ocean", "forest", "human") is None
    assert precompute.get_status("") is None

    assert levels(caplog) == ["WARNING"] * 3
    assert caplog.text.count("key: must not be empty") == 3


async def test_an_unknown_recipient_is_a_warning_that_names_the_known_ones(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    precompute = EagerPrecompute.configure(service.address)

    assert await precompute.start_bridging_precompute("a", "ocean", "forest", "robot") is None

    assert levels(caplog) == ["WARNING"]
    assert "must be 'human' or 'haiku', not 'robot'" in caplog.text


async def test_arguments_of_a_wrong_type_are_a_warning_too(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    precompute: Any = EagerPrecompute.configure(service.address)
    start = precompute.start_bridging_precompute
    names = "'human', 'haiku', or an enumeration's member with such a value"

    for call, message in (
        (start(7.5, "a", "b", "human"), "game_id must be a str, an int or a UUID, not float"),
        (start(True, "a", "b", "human"), "game_id must be a str, an int or a UUID, not bool"),
        (start("k", None, "b", "human"), "anchor must be a str, not None"),
        (start("k", "a", [], "human"), "target must be a str, not list"),
        (start("k", "a", "b", 1), f"recipient_type must be {names}, not int"),
        (
            precompute.get_precomputed_results("abc123", timeout_seconds="2"),
            "timeout_seconds must be seconds (int or float) or a timedelta, or None, not str",
        ),
        (
            precompute.get_precomputed_results("\ud800"),
            "game_id: must be Unicode text, has a lone surrogate",
        ),
        (asyncio.to_thread(precompute.get_status, None), "game_id must be a str, an int"),
    ):
        caplog.clear()
        assert await call is None
        assert levels(caplog) == ["WARNING"]
        assert message in caplog.text
        assert "Traceback" not in caplog.text
    assert service.calls == []


def test_a_connection_that_took_all_of_the_time_is_an_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Channel):
        """The loop is busy elsewhere while this channel connects."""

        def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:
            monkeypatch.setattr(time, "monotonic", lambda: loop_time() + 60.0)
            return grpc.ChannelConnectivity.READY

        async def refuse(self, name: str, request: Any) -> Any:
            raise DeadlineExceeded("late")

    async def call() -> None:
        for ask in (
            lambda: precompute.start_bridging_precompute("k", "ocean", "forest", "human"),
            lambda: precompute.get_precomputed_results("k", 0),
        ):
            monkeypatch.setattr(time, "monotonic", loop_time)
            assert await ask() is None
        precompute.close()

    channel = Late()
    use(channel, monkeypatch)
    precompute = EagerPrecompute("localhost:1")
    run_virtually(call())
    assert channel.limits == [("StartPrecompute", 0.001), ("GetResults", 0.001)]
    assert levels(caplog) == ["WARNING"]
    assert "DeadlineExceeded" in caplog.text


async def test_a_wrong_environment_is_one_warning_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HEADSTART_ADDRESS", "http://headstart:50051")
    precompute = EagerPrecompute.get_instance()

    for _ in range(2):
        await assert_all_four_are_none(precompute)

    assert levels(caplog) == ["WARNING"]
    assert "HEADSTART_ADDRESS 'http://headstart:50051' is a URL" in caplog.text
    with pytest.raises(ValueError, match="address 'https://h' is a URL, not a gRPC target"):
        EagerPrecompute.configure("https://h")
    assert EagerPrecompute.get_instance() is precompute


async def test_a_status_from_the_future_is_none(service: Any) -> None:
    service.on("GetStatus", pb.GetStatusResponse(key="abc123", status=99))  # type: ignore[arg-type]
    service.on("GetResults", pb.GetResultsResponse(key="abc123", status=99))  # type: ignore[arg-type]
    precompute = EagerPrecompute.configure(service.address)

    assert precompute.get_status("abc123") is None
    assert await precompute.get_precomputed_results("abc123") is None


class TestOutageLog:
    """What is news, when several calls fare differently."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    def test_any_answer_ends_the_outage_of_an_unreachable_service(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = OutageLog()

        log.failed("start", ServiceUnavailable("refused"))
        log.failed("get", ServiceUnavailable("refused"))
        log.answered("get")
        log.answered("start")

        assert levels(caplog) == ["WARNING", "INFO"]

    @pytest.mark.parametrize(
        "error",
        [
            ServiceError("INTERNAL"),
            DeadlineExceeded("slow"),
            # The server itself said so: it is there.
            ServiceUnavailable("store away", retry_after=1.0),
        ],
    )
    def test_one_failing_call_among_good_ones_does_not_fill_the_log(
        self, error: HeadstartError, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = OutageLog()

        for _ in range(5):
            log.failed("start", error)
            log.answered("get")
        assert levels(caplog) == ["WARNING"]

        log.answered("start")
        assert levels(caplog) == ["WARNING", "INFO"]

    def test_a_call_that_failed_long_ago_no_longer_counts(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        log = OutageLog(clock)

        log.failed("stats", DeadlineExceeded("hung"))
        clock.now += 61
        log.answered("get")
        log.failed("get", ServiceUnavailable("refused"))

        assert levels(caplog) == ["WARNING", "INFO", "WARNING"]

    def test_an_unreachable_service_stays_unreachable_however_long_nobody_asks(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        log = OutageLog(clock)

        log.failed("get", ServiceUnavailable("refused"))
        clock.now += 3600
        log.failed("get", ServiceUnavailable("refused"))

        assert levels(caplog) == ["WARNING"]
