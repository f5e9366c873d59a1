"""get_or_compute and ReportStep with real servers, workers and signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headstart import (
    BlockingClient,
    InvalidRequest,
    PrecomputeClient,
    StartOutcome,
    StepOrigin,
)
from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES, began
from tests.support.processes import Process, Service, api, stub, worker
from tests.support.requests import json_of, noop, probe, results
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
LONG = 30.0
PATIENT = 20.0


@dataclass
class Place:
    process: Process
    address: str
    stub: Service
    client: PrecomputeClient


@pytest.fixture
async def place(valkey: Valkey) -> AsyncIterator[Place]:
    """An API process, without a worker."""
    async with AsyncExitStack() as stack:
        process, address = await stack.enter_async_context(api(valkey.url, **LIGHT))
        service = await stack.enter_async_context(stub(address))
        client = await stack.enter_async_context(PrecomputeClient(address))
        yield Place(process, address, service, client)


async def live_first() -> int:
    return 8


async def live_gated(first: int) -> int:
    return int(first) * 10


FALLBACKS: dict[str, Any] = {"first": live_first, "gated": live_gated}


async def completed(place: Place, key: str) -> None:
    """Return when the run has ended; its steps may have all ended a moment before."""

    async def ended() -> bool:
        status = (await place.stub.GetStatus(pb.GetStatusRequest(key=key))).status
        return status == pb.PRECOMPUTE_STATUS_COMPLETED

    await wait_until(ended)


async def test_what_a_caller_computed_stops_the_worker_and_ends_the_run_for_all(
    place: Place, valkey: Valkey, tmp_path: Path
):
    async with worker(valkey.url, **LIGHT):
        await place.stub.StartPrecompute(probe("k", tmp_path, 7))
        await wait_until(lambda: len(began(tmp_path)) == 2)
        waiting = asyncio.ensure_future(place.stub.GetResults(results("k", 20)))
        got = await place.client.get_or_compute("k", LONG, FALLBACKS, report=True, budget=PATIENT)
        assert got.values == {"first": 8, "gated": 80}
        assert got.sources == {"first": "ready", "gated": "live"}
        answer = await waiting  # nobody has made the file that the worker's own step waits for
        await completed(place, "k")
    assert json_of(answer, "gated") == 80
    report = answer.steps["gated"]
    assert (report.origin, report.attempts) == (pb.STEP_ORIGIN_REPORTED, 0)
    ready = await place.client.get_results("k")
    assert ready.steps["gated"].origin is StepOrigin.REPORTED
    assert ready.steps["first"].origin is StepOrigin.COMPUTED


async def test_a_run_that_waits_for_a_worker_takes_reports_and_needs_no_step_more(
    place: Place, valkey: Valkey, tmp_path: Path
):
    await place.stub.StartPrecompute(probe("k", tmp_path, 7))
    await place.client.get_or_compute("k", LONG, FALLBACKS, report=True, budget=PATIENT)
    await place.client.close()  # awaits what is handed back
    ready = await place.stub.GetResults(results("k"))
    assert {name: report.origin for name, report in ready.steps.items()} == {
        "first": pb.STEP_ORIGIN_REPORTED,
        "gated": pb.STEP_ORIGIN_REPORTED,
    }
    async with worker(valkey.url, **LIGHT):
        await completed(place, "k")
    assert not (tmp_path / "began").exists()


async def test_a_run_of_a_killed_worker_keeps_what_was_reported(
    place: Place, valkey: Valkey, tmp_path: Path
):
    async with worker(valkey.url, **LIGHT, HEADSTART_LEASE="1") as lost:
        await place.stub.StartPrecompute(probe("k", tmp_path, 7))

        async def shown() -> bool:
            # A step begins before the one that it needs is kept.
            steps = (await place.stub.GetStatus(pb.GetStatusRequest(key="k"))).steps
            return steps["gated"] == pb.STEP_STATE_RUNNING

        await wait_until(shown)
        lost.send(signal.SIGSTOP)
        request = pb.ReportStepRequest(key="k", revision=1, step="gated")
        request.artifact.json = "80"
        assert (await place.stub.ReportStep(request)).accepted
        lost.kill()
        async with worker(valkey.url, **LIGHT, HEADSTART_LEASE="1"):
            await completed(place, "k")
    end = await place.stub.GetResults(results("k"))
    assert json_of(end, "gated") == 80
    assert len(began(tmp_path)) == 2


@pytest.mark.parametrize("way", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_server_that_goes_away_makes_calls_live_and_is_used_again_when_it_is_back(
    place: Place, valkey: Valkey, way: signal.Signals
):
    async with worker(valkey.url, **LIGHT):
        await place.stub.StartPrecompute(noop("k", 5))
        await place.stub.GetResults(results("k", 20))

    async def nothing() -> str:
        return "live"

    async def source() -> str:
        got = await place.client.get_or_compute("k", LONG, {"nothing": nothing})
        return got.sources["nothing"]

    await wait_until(lambda: _is(source(), "ready"))
    place.process.send(way)
    await wait_until(lambda: _is(source(), "live"))
    assert [await source() for _ in range(20)] == ["live"] * 20
    if way is signal.SIGSTOP:
        place.process.send(signal.SIGCONT)
        await wait_until(lambda: _is(source(), "ready"))


async def _is(call: Any, wanted: str) -> bool:
    return bool(await call == wanted)


async def test_a_store_that_hangs_makes_calls_live(place: Place, valkey: Valkey):
    async def nothing() -> str:
        return "live"

    assert valkey.process is not None
    valkey.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(5):
            got = await place.client.get_or_compute("none", LONG, {"nothing": nothing})
            assert got.sources == {"nothing": "live"}
    finally:
        valkey.process.send_signal(signal.SIGCONT)


async def test_a_server_that_is_overloaded_hangs_or_is_gone_skips_starts(valkey: Valkey):
    async with api(valkey.url, **LIGHT, HEADSTART_MAX_QUEUED="1") as (process, address):
        async with PrecomputeClient(address) as client:
            first = await client.start_or_skip("first", "noop", {"value": 1}, budget=PATIENT)
            assert first is not None
            for _ in range(5):  # there is no worker, so its place stays taken
                assert await client.start_or_skip("k", "noop", {"value": 1}, budget=PATIENT) is None
            with pytest.raises(InvalidRequest, match=r"custom\.pipeline"):
                await client.start_or_skip("k", "nowhere", {}, budget=PATIENT)
            process.send(signal.SIGSTOP)
            for _ in range(5):
                assert await client.start_or_skip("first", "noop", {"value": 1}) is None
            process.send(signal.SIGCONT)

            async def starts() -> bool:
                started = await client.start_or_skip("first", "noop", {"value": 1})
                return started is not None and started.outcome is StartOutcome.JOINED

            await wait_until(starts)
            process.kill()
            for _ in range(5):
                assert await client.start_or_skip("first", "noop", {"value": 1}) is None


async def test_threads_without_a_loop_get_the_same(place: Place, valkey: Valkey, tmp_path: Path):
    def use() -> None:
        with BlockingClient(place.address) as client:
            started = client.start("k", "probe", {"directory": str(tmp_path), "value": 7})
            got = client.get_or_compute(
                "k",
                LONG,
                {"first": lambda: 8, "gated": lambda first: int(first) * 10},
                report=True,
                budget=PATIENT,
                min_revision=started.revision,
            )
            assert got.values == {"first": 8, "gated": 80}

    await asyncio.to_thread(use)
    ready = await place.stub.GetResults(results("k"))
    assert ready.steps["gated"].origin == pb.STEP_ORIGIN_REPORTED
