"""What becomes of values that get_or_compute hands back, by real and by virtual clocks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from headstart import PrecomputeClient, ServiceError
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import ScriptedService, hang
from tests.support.virtual_time import loop_time, run_virtually
from tests.support.waiting import wait_until
from tests.unit.client.messages import PENDING, run, values
from tests.unit.client.virtual_channel import DAY, Channel, use

LONG = 30.0
PATIENT = 20.0
"""A budget that a busy machine keeps."""


async def one() -> int:
    return 1


@pytest.fixture
async def client(service: ScriptedService) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(service.address) as client:
        yield client


async def test_live_values_are_handed_back_in_order_and_only_if_what_they_need_was_kept(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    waiting = {name: pb.StepReport(state=PENDING) for name in ("a", "b", "c", "d")}
    service.on("GetResults", values(waiting), hang)

    async def answer(request: pb.ReportStepRequest, _: Any) -> Any:
        return pb.ReportStepResponse(accepted=request.step != "c")

    async def b(a: int) -> list[int]:
        return [a]

    async def d(c: int) -> int:
        return c

    service.on("ReportStep", answer)
    fallback = {"a": one, "b": b, "c": one, "d": d}
    await client.get_or_compute("k", LONG, fallback, report=True, budget=PATIENT)
    await wait_until(lambda: len(service.seen("ReportStep")) == 3)
    await client.close()
    requests = [call.request for call in service.seen("ReportStep")]
    assert sorted(request.step for request in requests) == ["a", "b", "c"]
    [of_b] = [request for request in requests if request.step == "b"]
    assert (of_b.revision, of_b.namespace, of_b.key) == (3, "default", "game-1")
    assert of_b.created_at == values().created_at
    assert of_b.artifact.json == "[1]"


async def test_nothing_is_handed_back_unasked_or_to_a_run_that_has_ended(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values({"a": pb.StepReport(state=PENDING)}), hang)
    await client.get_or_compute("k", LONG, {"a": one}, budget=PATIENT)
    service.on("GetResults", values(other="x"))
    await client.get_or_compute("k", LONG, {"a": one}, report=True, budget=PATIENT)
    await client.close()
    assert service.seen("ReportStep") == []


async def test_a_report_neither_delays_nor_fails_the_call_and_ends_with_the_client(
    service: ScriptedService,
) -> None:
    before = asyncio.all_tasks()

    async def under_way(request: pb.GetResultsRequest, context: Any) -> Any:
        if request.required_steps:
            await hang(request, context)
        return values({"a": pb.StepReport(state=PENDING)})

    service.on("GetResults", under_way)
    service.on("ReportStep", hang)
    async with PrecomputeClient(service.address) as client:
        for _ in range(40):
            got = await client.get_or_compute("k", LONG, {"a": one}, report=True, budget=PATIENT)
            assert got.values == {"a": 1}
        await wait_until(lambda: len(service.seen("ReportStep")) > 0)

    assert {task for task in asyncio.all_tasks() - before if task.get_name() == "report step"} == (
        set()
    )


# On a virtual clock


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
