"""`headstart.testing.fake_server`: estimates, origins, callers' reports and the ledger.

What it does as the service does is in tests/integration/fake.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc.aio
import numpy as np
import pytest

from headstart import (
    BlockingClient,
    Ledger,
    NotFound,
    PrecomputeClient,
    PrecomputeStatus,
    StepEstimate,
    StepOrigin,
    StepState,
    Tensor,
)
from headstart.testing import completed_results, fake_server
from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub
from tests.support.waiting import wait_until


async def report(address: str, request: pb.ReportStepRequest) -> None:
    """Report a step as another caller does."""
    async with grpc.aio.insecure_channel(address) as channel:
        await PrecomputeServiceStub(channel).ReportStep(request, timeout=LONG)


NEVER = 3600.0
LONG = 30.0
PATIENT = 20.0


async def live() -> str:
    return "live"


@pytest.mark.parametrize(
    ("estimates", "source"),
    [
        ({"a": (0.1, 5.0)}, "waited"),
        ({"a": (0.1, PATIENT + 5)}, "live"),
        (None, "live"),
    ],
)
async def test_callers_wait_for_what_the_script_expects_soon(estimates: Any, source: str) -> None:
    with fake_server({"a": "service"}, delays={"a": 0.2}, estimates=estimates) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            got = await client.get_or_compute("k", LONG, {"a": live}, budget=PATIENT)
    assert got.sources == {"a": source}


async def test_an_estimate_counts_down_and_leaves_a_tenth() -> None:
    whole = {"told": 100.0, "over": (0.01, 0.02)}
    never = dict.fromkeys(whole, NEVER)
    with fake_server({"told": 1, "over": 2}, delays=never, estimates=whole) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})

            async def over() -> dict[str, StepEstimate] | None:
                steps = (await client.get_results("k")).steps
                found = {name: step.estimate for name, step in steps.items() if step.estimate}
                done = found["over"].p50 == timedelta(seconds=0.001)
                return found if done and found["over"].p90 == timedelta(seconds=0.002) else None

            told = await wait_until(over)
    assert told is not None
    assert timedelta(seconds=40) < told["told"].p50 == told["told"].p90 < timedelta(seconds=100)


async def test_results_bring_estimates_and_origins_of_their_own() -> None:
    scripted = completed_results("g", recipient_type="human")
    expected = StepEstimate(p50=timedelta(seconds=50), p90=timedelta(seconds=90))
    steps = dict(scripted.steps)
    steps["embed_endpoints"] = replace(steps["embed_endpoints"], origin=StepOrigin.KEPT)
    steps["null_samples"] = replace(
        steps["null_samples"], state=StepState.RUNNING, estimate=expected, elapsed=None
    )
    origins = {"lexical_bridge": "memoised"}
    with fake_server(replace(scripted, steps=steps), origins=origins) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start_bridging("g", "ocean", "forest")
            results = await client.get_results("g")
    assert {name: step.origin for name, step in results.steps.items()} == {
        "embed_endpoints": StepOrigin.KEPT,
        "lexical_bridge": StepOrigin.MEMOISED,
        "null_samples": StepOrigin.COMPUTED,
    }
    assert results.missing == ("null_samples",)
    estimate = results.steps["null_samples"].estimate
    assert estimate is not None
    assert timedelta(seconds=20) < estimate.p50 <= expected.p50
    assert timedelta(seconds=60) < estimate.p90 <= expected.p90


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"estimates": {"b": 1.0}}, ValueError, "no such step: b; there are a"),
        ({"estimates": {"a": (2.0, 1.0)}}, ValueError, r"estimates\['a'\] must be 0 <= p50"),
        ({"estimates": {"a": float("nan")}}, ValueError, r"estimates\['a'\]"),
        ({"origins": {"b": "kept"}}, ValueError, "no such step: b"),
        ({"origins": {"a": "stolen"}}, ValueError, "stolen"),
        ({"needs": {"a": ["b"]}}, ValueError, "no such step: b"),
        ({"needs": {"b": ["a"]}}, ValueError, "no such step: b"),
        ({"needs": {"a": "a"}}, TypeError, r"needs\['a'\] must be a list of steps"),
    ],
)
def test_what_is_said_of_steps_is_checked_at_once(
    wrong: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        fake_server({"a": 1}, **wrong)


async def test_a_test_reads_what_callers_have_reported() -> None:
    values: dict[str, Any] = {
        "text": {"b": 3.0, "a": 2**60 + 1},
        "raw": b"\x00\xff",
        "array": np.array([0.1, 0.2]),
    }
    never = dict.fromkeys(values, NEVER)
    with fake_server(values, delays=never) as server:
        async with PrecomputeClient(server.address, namespace="shop") as client:
            started = await client.start("k", "p", {})

            def fallback(value: Any) -> Any:
                async def compute() -> Any:
                    return value

                return compute

            functions = {step: fallback(value) for step, value in values.items()}
            await client.get_or_compute("k", LONG, functions, report=True, budget=PATIENT)
        told = {each.step: each for each in server.reported("k", namespace="shop")}
        assert server.reported("k") == []
    assert {each.accepted for each in told.values()} == {True}
    assert {each.revision for each in told.values()} == {started.revision}
    assert all(timedelta(0) <= each.elapsed < timedelta(seconds=LONG) for each in told.values())
    assert told["text"].value == values["text"]
    assert isinstance(told["text"].value["b"], float)
    assert told["raw"].value == b"\x00\xff"
    assert told["array"].value == Tensor.of((0.1, 0.2), "float64")


async def test_a_game_is_reported_as_fallbacks_return_it_and_a_step_once() -> None:
    with fake_server(queued=NEVER) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start_bridging("g", "ocean", "forest", "human")
            ends = {
                "anchor_embedding": (1.0, 0.0),
                "target_embedding": (0.0, 1.0),
                "embedding_model": "m",
            }

            async def embed_endpoints() -> dict[str, Any]:
                return ends

            async def null_samples(embed_endpoints: dict[str, Any]) -> list[float]:
                assert embed_endpoints == ends
                return [0.5, 0.25]

            await client.get_or_compute(
                "g",
                LONG,
                {"embed_endpoints": embed_endpoints, "null_samples": null_samples},
                report=True,
                budget=PATIENT,
            )
            await wait_until(lambda: len(server.reported("g")) == 2)
            again = pb.ReportStepRequest(key="g", revision=1, step="null_samples")
            again.bridging.null_samples.append(0.75)
            await report(server.address, again)
        told = [(each.step, each.value, each.accepted) for each in server.reported("g")]
    assert told == [
        ("embed_endpoints", ends, True),
        ("null_samples", (0.25, 0.5), True),
        ("null_samples", (0.75,), False),
    ]


async def test_a_run_whose_failing_step_was_reported_is_completed() -> None:
    with fake_server({"b": 1}, failed={"a": "no"}, error="a: no", delays={"a": 0.3}) as server:
        async with PrecomputeClient(server.address) as client:
            for key in ("reported", "not"):
                await client.start(key, "p", {})
            await client.get_or_compute("reported", LONG, {"a": live}, report=True, budget=PATIENT)
            found = {}
            for key in ("reported", "not"):
                results = await client.get_results(key, wait=LONG)
                found[key] = results.status
    assert found == {"reported": PrecomputeStatus.COMPLETED, "not": PrecomputeStatus.FAILED}


def test_threads_without_a_loop_get_the_same() -> None:
    with fake_server({"a": 1}, delays={"a": NEVER}) as server:
        with BlockingClient(server.address) as client:
            client.start("k", "p", {})
            got = client.get_or_compute("k", LONG, {"a": lambda: 2}, report=True, budget=PATIENT)
            assert got.sources == {"a": "live"}
        [report] = server.reported("k")
    assert (report.value, report.accepted) == (2, True)


async def test_pipelines_show_what_their_steps_need() -> None:
    with fake_server() as server:
        server.script({"a": 1, "b": 2}, pipeline="p", needs={"b": ["a"]})
        async with PrecomputeClient(server.address) as client:
            [described] = await client.list_pipelines()
    assert {step.name: step.needs for step in described.steps} == {"a": (), "b": ("a",)}


async def test_the_ledger_has_amounts() -> None:
    with fake_server({"a": 1, "b": 2}, delays={"a": 0.1, "b": 0.3}) as server:
        server.script({"a": 1}, failed={"b": "no"}, error="b: no", delays={"b": 0.1}, key="failed")
        server.script({"a": 1}, origins={"a": "kept"}, key="kept")
        async with PrecomputeClient(server.address) as client:

            async def ledger() -> Ledger:
                told = (await client.get_stats()).ledger
                assert told is not None
                return told

            assert (await client.get_stats()).ledger is None
            await client.start("k", "p", {})
            # This reader comes before the end, and the next one when it is over.
            await client.get_results("k", wait=LONG, required_steps=["a"])
            await client.get_results("k", wait=LONG)
            first = await ledger()
            for key, ttl in (("failed", None), ("kept", 0.05)):
                await client.start(key, "p", {}, ttl=ttl)

            async def settled() -> Ledger | None:
                told = await ledger()
                return told if told.unsettled == 0 else None

            last = await wait_until(settled)
            with pytest.raises(NotFound):
                await client.get_results("kept")
    assert (first.starts, first.unsettled) == (1, 0)
    assert first.fates["used_waited"].runs == 1
    steps = sum(work.steps for work in first.fates.values())
    compute = sum((work.compute for work in first.fates.values()), timedelta())
    assert (steps, compute) == (2, timedelta(seconds=0.4))
    assert first.hidden + first.waited == timedelta(seconds=0.3)
    assert first.pipelines["p"].hidden == first.hidden
    assert last is not None
    told = {fate: (work.runs, work.steps) for fate, work in last.fates.items()}
    assert (told["failed"], told["expired"]) == ((1, 2), (1, 0))


async def test_a_watcher_receives_a_report_at_once() -> None:
    with fake_server({"a": 1, "b": 2}, delays={"a": NEVER, "b": NEVER}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            seen: list[list[str]] = []
            async with asyncio.timeout(LONG):
                async for results in client.watch_results("k"):
                    seen.append(sorted(results.custom or ()))
                    missing = next(iter(results.missing), None)
                    if missing is not None:
                        request = pb.ReportStepRequest(key="k", revision=1, step=missing)
                        request.artifact.json = "5"
                        await report(server.address, request)
    assert seen == [[], ["a"], ["a", "b"]]
