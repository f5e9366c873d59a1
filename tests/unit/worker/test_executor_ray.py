"""Steps on Ray, with the process that is connected to it played by a test. Time is virtual."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import pickle
import signal
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from headstart_service.domain.errors import ExecutorUnavailable, StartupError, StepFailed
from headstart_service.pipeline.ray_options import RayOptions
from headstart_service.pipeline.step import step
from headstart_service.worker.cost_meter import CostMeter
from headstart_service.worker.executors.child_socket import LENGTH
from headstart_service.worker.executors.ray_cluster import (
    DriverProcess,
    RayAway,
    RayCluster,
    refuse_closed,
    request_for,
)
from headstart_service.worker.executors.ray_messages import Answer, Request
from headstart_service.worker.executors.remote_call import Performed
from tests.support.virtual_time import loop_time, run_virtually

MINUTE = 60.0


class Model:
    """An actor."""


@step(runs_on="ray")
def plain(word: str) -> str:
    return word


@step(runs_on="ray", ray=RayOptions(num_cpus=2, actor=Model, actors=3))
def held(word: str, actor: Model) -> str:
    return word


class Ray:
    """A cluster: tests say whether it can be reached, and what becomes of what it is asked."""

    def __init__(self) -> None:
        self.away = ""
        self.slow = 0.0
        self.connects: list[float] = []
        self.asked: list[Request] = []
        self.probes: list[float] = []
        self.refused: dict[str, Answer] = {}
        self.answer: Callable[[Request], Coroutine[Any, Any, Answer]] = self.done
        self.drivers: list[Driver] = []
        self.killed: list[float] = []
        self.reasons: list[str | None] = []
        """Why `plain` was unavailable at each change."""

    async def done(self, request: Request) -> Answer:
        return Answer(number=request.number, done=pickle.dumps(Performed("x", cpu_seconds=2.0)))

    async def start(self, address: str | None) -> Driver:
        self.connects.append(loop_time())
        self.drivers.append(Driver(self))
        return self.drivers[-1]


class Driver:
    """Stands for the process that is connected."""

    def __init__(self, ray: Ray) -> None:
        self._ray = ray
        self._number = 0
        self.gone = asyncio.Event()
        self.reason = "its process has ended"

    async def connected(self) -> None:
        await asyncio.sleep(self._ray.slow)
        if self._ray.away:
            raise RayAway(self._ray.away)

    async def ask(self, request: Request) -> Answer:
        if request.probe:
            self._ray.probes.append(loop_time())
            refused = self._ray.refused.get(request.label)
            return refused or Answer(number=request.number)
        self._ray.asked.append(request)
        return await self._ray.answer(request)

    def number(self) -> int:
        self._number += 1
        return self._number

    async def kill(self, *, after: float = 0.0) -> None:
        self._ray.killed.append(after)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return made


def virtually(
    ray: Ray,
    test: Callable[[RayCluster, list[float]], Coroutine[Any, Any, Any]],
    *,
    start: bool = True,
) -> Any:
    """Run `test` with a cluster; gives it also the times of changes."""

    async def main() -> Any:
        changes: list[float] = []

        def changed() -> None:
            changes.append(loop_time())
            ray.reasons.append(cluster.unavailable(plain))

        cluster = RayCluster(None, [plain, held], changed, ray.start)
        try:
            if start:
                await cluster.start()
            return await test(cluster, changes)
        finally:
            await cluster.aclose()

    return run_virtually(main())


def test_a_cluster_that_is_away_is_tried_ever_more_seldom_and_logged_twice_a_minute(
    ray: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    ray.away = "refused"

    async def test(cluster: RayCluster, changes: list[float]) -> None:
        assert cluster.unavailable(plain) == "Ray is away: refused"
        with pytest.raises(ExecutorUnavailable, match=r"^Ray is away: refused$") as failed:
            await cluster.call(plain, {}, CostMeter())
        assert not failed.value.began
        await asyncio.sleep(MINUTE - 0.1)
        assert changes == [0.0], "it is told when the reason changes"
        logged = len(caplog.records)
        assert 2 <= logged <= 3
        ray.away = ""
        await asyncio.sleep(5.0)
        assert cluster.unavailable(plain) is None
        assert len(changes) == 2
        ray.away = "again"
        ray.drivers[-1].gone.set()
        await asyncio.sleep(0.1)
        assert len(caplog.records) == logged + 2, "a new outage is logged at once"

    virtually(ray, test)
    pauses = [
        later - earlier for earlier, later in zip(ray.connects, ray.connects[1:], strict=False)
    ]
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert set(pauses[5:12]) == {5.0}
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "waiting for Ray at its default, steps on it wait too: refused"
    assert "connected to Ray at its default" in told
    assert told[-1].endswith("its process has ended")


def test_a_connection_that_is_lost_is_made_again_at_once_and_its_process_ended(ray: Ray) -> None:
    async def test(cluster: RayCluster, changes: list[float]) -> None:
        ray.drivers[0].gone.set()
        ray.drivers[0].reason = "the head has gone"
        ray.reasons.clear()
        await asyncio.sleep(1.0)
        assert ray.reasons == ["Ray is away: the head has gone", None]
        assert ray.killed == [0.0]

    virtually(ray, test)
    assert ray.connects == [0.0, 0.0]
    assert ray.killed == [0.0, 5.0], "one that is still connected may leave the cluster"


@pytest.mark.parametrize(
    ("slow", "logged", "reason"),
    [(4.9, 0, None), (5.1, 1, None), (60.1, 2, "Ray is away: no connection within 60 s")],
)
def test_connecting_takes_a_minute_at_most_and_is_logged_after_five_seconds(
    ray: Ray, slow: float, logged: int, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ray.slow = slow

    async def test(cluster: RayCluster, _: list[float]) -> tuple[float, str | None]:
        return loop_time(), cluster.unavailable(plain)

    took, told = virtually(ray, test)
    assert took == pytest.approx(min(slow, 60.0))
    assert told == reason
    assert len(caplog.records) == logged
    if logged:
        assert caplog.records[0].getMessage().endswith("no connection after 5 s")


def test_nodes_without_a_steps_code_are_compared_again_every_ten_seconds(
    ray: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    ray.refused["plain"] = Answer(number=0, refused="has other code of shop")

    async def test(cluster: RayCluster, changes: list[float]) -> None:
        reason = "no node of Ray has the code of step plain: has other code of shop"
        assert cluster.unavailable(plain) == reason
        assert cluster.unavailable(held) is None
        assert [record.getMessage() for record in caplog.records] == [reason]
        await asyncio.sleep(29.9)
        assert ray.probes == [0.0] * 2 + [10.0] * 2 + [20.0] * 2
        assert len(changes) == 1
        ray.refused.clear()
        await asyncio.sleep(0.2)
        assert cluster.unavailable(plain) is None
        assert len(changes) == 2
        await asyncio.sleep(10 * MINUTE)
        assert len(ray.probes) == 8, "nothing is compared while all have the code"

    virtually(ray, test)


def test_code_that_no_node_can_import_refuses_the_start(ray: Ray) -> None:
    ray.refused["held"] = Answer(number=0, refused="cannot import shop", missing=True)

    async def test(_: RayCluster, __: list[float]) -> None:
        raise AssertionError

    with pytest.raises(StartupError, match="no node of Ray can run step held: cannot import shop"):
        virtually(ray, test)


def test_without_ray_the_start_is_refused(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    async def test(cluster: RayCluster, __: list[float]) -> None:
        with pytest.raises(StartupError, match=r"pip install '\.\[ray\]'"):
            await cluster.start()

    virtually(ray, test, start=False)


def test_a_call_asks_with_all_options_and_pays_its_cpu(ray: Ray) -> None:
    async def test(cluster: RayCluster, _: list[float]) -> None:
        meter = CostMeter(cpu_seconds=1.0)
        assert await cluster.call(held, {"word": "sea"}, meter) == "x"
        assert meter.cpu_seconds == 3.0
        [asked] = ray.asked
        assert (asked.label, asked.actors, asked.probe) == ("held", 3, False)
        assert asked.options == {"num_cpus": 2}
        assert asked.call is not None
        assert asked.call.name == "held"
        assert asked.call.actor == (__name__, "Model")
        assert asked.call.code.keys() == {__name__}
        assert pickle.loads(asked.call.arguments) == {"word": "sea"}
        with pytest.raises(StepFailed, match="its inputs cannot be sent to Ray") as failed:
            await cluster.call(plain, {"word": lambda: 1}, meter)
        assert not failed.value.retry

    virtually(ray, test)
    assert request_for(plain, 7, probe=True).probe


@pytest.mark.parametrize("how", ["lost", "refused", "away", "failed"])
def test_a_call_that_ray_does_not_finish_reports_why(ray: Ray, how: str) -> None:
    async def answer(request: Request) -> Answer:
        match how:
            case "lost":
                return Answer(number=request.number, lost="its node has died")
            case "refused":
                ray.refused["plain"] = Answer(number=0, refused="has other code of shop")
                return ray.refused["plain"]
            case "away":
                raise RayAway("the head has gone")
        done = Performed(failure="no such word", retry=False)
        return Answer(number=request.number, done=pickle.dumps(done))

    ray.answer = answer

    async def test(cluster: RayCluster, changes: list[float]) -> None:
        with pytest.raises((StepFailed, ExecutorUnavailable)) as failed:
            await cluster.call(plain, {}, CostMeter())
        error = failed.value
        told = {
            "lost": "its node has died",
            "refused": "no node of Ray has the code of step plain: has other code of shop",
            "away": "Ray was lost while it ran: the head has gone",
            "failed": "no such word",
        }
        assert str(error) == told[how]
        if isinstance(error, ExecutorUnavailable):
            assert error.began is (how == "away")
        else:
            assert error.retry is (how == "lost")
        assert len(changes) == (2 if how == "refused" else 1)
        if how == "refused":
            probes = len(ray.probes)
            await asyncio.sleep(9.9)
            assert len(ray.probes) == probes
            await asyncio.sleep(0.2)
            assert len(ray.probes) == probes + 2, "it is compared again, as at the start"

    virtually(ray, test)


def test_a_cancelled_call_is_logged(ray: Ray, caplog: pytest.LogCaptureFixture) -> None:
    async def forever(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    ray.answer = forever

    async def test(cluster: RayCluster, _: list[float]) -> None:
        calling = asyncio.create_task(cluster.call(plain, {}, CostMeter()))
        await asyncio.sleep(1.0)
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling

    virtually(ray, test)
    assert [record.getMessage() for record in caplog.records] == ["plain is cancelled on Ray"]


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "[::1]:1"])
async def test_an_address_where_nothing_listens_is_found_out_before_ray_is_asked(
    address: str,
) -> None:
    with pytest.raises(RayAway, match="does not accept connections") as away:
        await refuse_closed(address)
    assert str(away.value).startswith(address)
    for unchecked in (None, "auto", "local", ":1"):
        await refuse_closed(unchecked)


# The worker's end of that process


class Process:
    """A process that ends when it is killed; its other end of the socket is the test's."""

    def __init__(self) -> None:
        self.pid = 2**22 + 1
        self.waits: list[float | None] = []
        self.stubborn = True

    def wait(self, timeout: float | None = None) -> int:
        self.waits.append(timeout)
        if timeout is not None and self.stubborn:
            raise subprocess.TimeoutExpired("ray", timeout)
        return 0


class Pipe:
    """Collects what the worker writes."""

    def __init__(self) -> None:
        self.sent: list[Request] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        (size,) = LENGTH.unpack(data[: LENGTH.size])
        assert size == len(data) - LENGTH.size
        self.sent.append(pickle.loads(data[LENGTH.size :]))

    def close(self) -> None:
        self.closed = True


class End:
    """A driver with its process, what it has written, and what it is sent."""

    def __init__(self) -> None:
        self.process, self.pipe = Process(), Pipe()
        self.reader = asyncio.StreamReader()
        self.driver = DriverProcess(self.process, self.reader, self.pipe)  # type: ignore[arg-type]

    def send(self, **fields: Any) -> None:
        body = pickle.dumps(Answer(**{"number": 0} | fields))
        self.reader.feed_data(LENGTH.pack(len(body)) + body)


async def test_answers_reach_those_who_asked_and_the_end_all_of_them() -> None:
    end = End()
    end.send()
    await end.driver.connected()
    requests = [request_for(plain, end.driver.number()) for _ in range(3)]
    assert [request.number for request in requests] == [1, 2, 3]
    asking = [asyncio.create_task(end.driver.ask(request)) for request in requests]
    await asyncio.sleep(0)
    end.send(number=2, done=b"two")
    assert (await asking[1]).done == b"two"
    asking[0].cancel()
    await asyncio.wait({asking[0]})
    assert [request.number for request in end.pipe.sent] == [1, 2, 3, 1]
    assert end.pipe.sent[-1].call is None
    end.send(number=1, done=b"late")
    end.send(refused="the cluster has ended")
    with pytest.raises(RayAway, match=r"^the cluster has ended$"):
        await asking[2]
    assert end.driver.gone.is_set()
    with pytest.raises(RayAway, match=r"^the cluster has ended$"):
        await end.driver.ask(requests[0])
    await end.driver.kill()
    assert end.pipe.closed
    assert end.process.waits == [None]


@pytest.mark.parametrize("refused", ["", "no such version"])
async def test_a_process_that_does_not_connect_reports_why(refused: str) -> None:
    end = End()
    if refused:
        end.send(refused=refused)
    end.reader.feed_eof()
    with pytest.raises(RayAway) as away:
        await end.driver.connected()
    assert str(away.value) == (refused or "its process has ended")


async def test_a_process_may_leave_before_it_is_killed_with_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "headstart_service.worker.executors.ray_cluster.os.killpg",
        lambda *told: killed.append(told),
    )
    end = End()
    await end.driver.kill(after=5.0)
    assert end.process.waits == [5.0, None]
    assert killed == [(end.process.pid, signal.SIGKILL)]


@pytest.mark.parametrize(
    "options",
    [{"num_cpus": 1.5}, {"num_cpus": 0.0001}, {"num_gpus": 0.5}, {"num_gpus": 2}, {"num_cpus": 1}],
    ids=str,
)
def test_amounts_that_ray_takes_are_asked_of_it(options: dict[str, Any]) -> None:
    assert RayOptions(**options).wanted() == options
