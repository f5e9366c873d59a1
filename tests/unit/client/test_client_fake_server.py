"""`headstart.testing.fake_server`: the service's contract, played for callers' tests."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
import pytest

from headstart import (
    EagerPrecompute,
    InvalidRequest,
    NotFound,
    PrecomputeClient,
    PrecomputeStatus,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    StartOutcome,
    StepState,
    Tensor,
    Violation,
)
from headstart.testing import FakeServer, completed_results, fake_server
from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub
from tests.support.requests import json_of
from tests.support.waiting import wait_until

COMPLETED, RUNNING, FAILED = StepState.COMPLETED, StepState.RUNNING, StepState.FAILED
NEVER = 3600.0
"""A delay that no test outlives."""


async def test_a_game_gets_results_in_the_right_shapes():
    with fake_server() as server:
        async with PrecomputeClient(server.address) as client:
            started = await client.start_bridging("g", "ocean", "forest", "haiku", clue_count=3)
            results = await client.get_results("g", wait=5)
    assert (started.outcome, started.status, started.revision) == ("started", "pending", 1)
    assert (results.status, results.missing) == (PrecomputeStatus.COMPLETED, ())
    assert results.bridging is not None
    assert results.bridging.haiku_clues == ("clue0", "clue1", "clue2")
    assert results.bridging == completed_results("g", clue_count=3).bridging


async def test_the_facade_plays_with_it_too():
    with fake_server() as server:
        eager = EagerPrecompute(server.address)
        status = await eager.start_bridging_precompute("g", "ocean", "forest", "human")
        results = await eager.get_precomputed_results("g", timeout_seconds=5)
        # Its plain methods block this loop; the server has one of its own.
        counted, seen = eager.get_stats(), eager.get_status("g")
        eager.close()
    assert status is PrecomputeStatus.PENDING
    assert results is not None
    assert results.lexical_bridge == [f"word{number}" for number in range(5)]
    assert results.haiku_clues is None
    assert seen is PrecomputeStatus.COMPLETED
    assert counted == {"total_cached": 1, "active_tasks": 0, "status_counts": {"completed": 1}}


async def test_scripted_results_are_what_comes_back():
    scripted = completed_results("g", missing=["null_samples"], dimensions=4)
    with fake_server(scripted) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start_bridging("g", "ocean", "forest", "haiku")
            results = await client.get_results("g", wait=5)
    assert results.bridging == scripted.bridging
    assert results.missing == ("null_samples",)
    assert results.steps["null_samples"].error == "made to fail"


async def test_values_of_every_kind_come_back():
    values = {
        "text": "a",
        "whole": {"list": [1, 2.5, None, True], "tuple": ("x",), "b": 3.0, "a": 2**60 + 1},
        "doubles": np.array([0.1, 0.2]),
        "longs": np.array([[2**60 + 1]]),
        "raw": b"\x00\xff",
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "tensor": Tensor.of((0.5, 1.5)),
    }
    with fake_server(values) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "anything", {})
            custom = (await client.get_results("k", wait=5)).custom
    assert custom is not None
    assert custom["text"] == "a"
    assert custom["whole"] == {
        "list": [1, 2.5, None, True], "tuple": ["x"], "b": 3.0, "a": 2**60 + 1
    }  # fmt: skip
    assert [type(custom["whole"][name]) for name in "ab"] == [int, float]
    for name in ("array", "doubles", "longs"):
        back = np.asarray(custom[name])
        assert back.dtype == values[name].dtype
        assert np.array_equal(back, values[name])
    assert custom["raw"] == b"\x00\xff"
    assert custom["tensor"] == values["tensor"]


def test_a_value_that_is_no_artifact_is_refused_at_once():
    with pytest.raises(TypeError, match="object is not bytes, an array or JSON"):
        fake_server({"x": object()})


def test_a_delay_of_a_step_that_is_not_there_is_refused_at_once():
    with pytest.raises(ValueError, match="no such step: b; there are a"):
        fake_server({"a": 1}, delays={"b": 1})


async def test_a_wait_ends_with_what_exists_and_each_steps_state():
    with fake_server({"a": 1, "b": 2}, delays={"b": NEVER}, failed={"c": "no luck"}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            results = await client.get_results("k", wait=0.05)
    assert results.status is PrecomputeStatus.IN_PROGRESS
    assert results.custom == {"a": 1}
    states = {name: report.state for name, report in results.steps.items()}
    assert states == {"a": COMPLETED, "b": RUNNING, "c": FAILED}
    assert results.steps["c"].error == "no luck"


async def test_a_wait_ends_when_the_required_steps_have_ended():
    with fake_server({"a": 1, "b": 2}, delays={"a": 0.1, "b": NEVER}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            async with asyncio.timeout(20):
                results = await client.get_results("k", wait=600, required_steps=["a"])
            with pytest.raises(InvalidRequest, match=r"required_steps\[1\]: must be one of: a, b"):
                await client.get_results("k", wait=1, required_steps=["a", "x"])
    assert results.custom == {"a": 1}


async def test_a_wait_lasts_as_long_as_its_step():
    with fake_server({"a": 1}, delays={"a": 0.2}) as server:
        async with PrecomputeClient(server.address) as client:
            began = time.monotonic()
            await client.start("k", "p", {})
            at_once = await client.get_results("k")
            results = await client.get_results("k", wait=30)
            took = time.monotonic() - began
    assert (at_once.custom, results.custom) == ({}, {"a": 1})
    assert took >= 0.2
    assert results.steps["a"].elapsed is not None
    assert results.steps["a"].elapsed.total_seconds() == pytest.approx(0.2)


async def test_an_answer_comes_before_the_callers_deadline():
    with fake_server({"a": 1}, delays={"a": NEVER}) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = PrecomputeServiceStub(channel)
            custom = pb.CustomSpec(pipeline="p")
            await stub.StartPrecompute(pb.StartPrecomputeRequest(key="k", custom=custom))
            request = pb.GetResultsRequest(key="k")
            request.wait.FromSeconds(60)
            answer = await stub.GetResults(request, timeout=1.5)
    assert answer.steps["a"].state == pb.STEP_STATE_RUNNING


async def test_starts_join_reuse_replace_and_restart():
    with fake_server(lambda inputs: {"double": inputs["n"] * 2}, delays={"double": 0.3}) as server:
        async with PrecomputeClient(server.address) as client:

            async def start(number: int, **more) -> tuple[str, int]:
                started = await client.start("k", "p", {"n": number}, **more)
                return started.outcome, started.revision

            assert await start(1) == (StartOutcome.STARTED, 1)
            assert await start(1) == (StartOutcome.JOINED, 1)
            assert await start(2) == (StartOutcome.REPLACED, 2)
            assert (await client.get_results("k", wait=30)).custom == {"double": 4}
            assert await start(2) == (StartOutcome.REUSED, 2)
            assert await start(2, restart=True) == (StartOutcome.STARTED, 3)
            with pytest.raises(NotFound):
                await client.get_results("k", min_revision=4)


async def test_one_who_waits_for_a_run_that_is_replaced_gets_the_new_one():
    with fake_server({"a": 1}, delays={"a": NEVER}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            waiting = asyncio.create_task(client.get_results("k", wait=600))
            await wait_until(lambda: server.seen("GetResults"))
            server.script({"a": 2}, pipeline="p")
            await client.start("k", "p", {"other": True})
            async with asyncio.timeout(20):
                assert (await waiting).custom == {"a": 2}


async def test_keys_and_pipelines_have_scripts_of_their_own():
    with fake_server({"of": "all"}) as server:
        server.script({"of": "pipeline"}, pipeline="p")
        server.script({"of": "key"}, key="k")
        async with PrecomputeClient(server.address) as client:
            found = {}
            for key, pipeline in (("k", "p"), ("other", "p"), ("other2", "q")):
                await client.start(key, pipeline, {})
                found[key] = (await client.get_results(key, wait=5)).custom["of"]
            [described] = await client.list_pipelines()
    assert found == {"k": "key", "other": "pipeline", "other2": "all"}
    assert (described.name, [step.name for step in described.steps]) == ("p", ["of"])


async def test_a_pipeline_that_nobody_scripted_is_unknown():
    with fake_server() as server:
        server.script({"a": 1}, pipeline="text")
        async with PrecomputeClient(server.address) as client:
            with pytest.raises(InvalidRequest) as caught:
                await client.start("k", "txt", {})
    assert caught.value.violations == (
        Violation(
            "custom.pipeline", "did you mean 'text'? must be one of: bridging, text; is 'txt'"
        ),
    )


async def test_what_nobody_started_is_not_found_and_what_has_expired_neither():
    with fake_server({"a": 1}) as server:
        async with PrecomputeClient(server.address) as client:
            with pytest.raises(NotFound):
                await client.get_results("k", wait=1)
            await client.start("k", "p", {}, ttl=0.05)

            async def forgotten() -> bool:
                try:
                    await client.get_status("k")
                except NotFound:
                    return True
                return False

            await wait_until(forgotten)


async def test_a_run_fails_after_its_script():
    with fake_server(failed={"a": "no luck"}, error="a: no luck") as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            results = await client.get_results("k", wait=5)
            again = await client.start("k", "p", {})
    assert (results.status, results.error) == (PrecomputeStatus.FAILED, "a: no luck")
    assert (again.outcome, again.revision) == (StartOutcome.STARTED, 2)


async def test_a_namespace_with_colons_has_pages_and_filters_of_its_own():
    with fake_server({"a": 1}, queued=NEVER) as server:
        async with PrecomputeClient(server.address, namespace="Shop:A") as client:
            for key in ("k1", "k2", "k3", "x"):
                await client.start(key, "p", {})
            await client.start("k1", "p", {}, namespace="Shop")
            await client.start("k4", "q", {})
            listed = [run.key async for run in client.list(page_size=1, key_prefix="k")]
            own = [run.key async for run in client.list(pipeline="q")]
            with pytest.raises(InvalidRequest, match="namespace: must be 1 to 64"):
                await client.start("k", "p", {}, namespace="Shop;A")
    assert listed == ["k1", "k2", "k3", "k4"]
    assert own == ["k4"]


async def test_cancels_lists_and_counts():
    with fake_server({"a": 1}, queued=NEVER) as server:
        async with PrecomputeClient(server.address) as client:
            for key in ("k1", "k2", "k3"):
                await client.start(key, "p", {})
            cancelled = await client.cancel("k2")
            again = await client.cancel("k2")
            stats = await client.get_stats()
            page = await client.list_page(page_size=2)
            rest = await client.list_page(page_size=2, page_token=page.next_page_token)
            pending = await client.list_page(statuses=["pending"])
    assert (cancelled.cancelled, cancelled.status) == (True, PrecomputeStatus.CANCELLED)
    assert not again.cancelled
    assert stats.status_counts == {"pending": 2, "cancelled": 1}
    assert [run.key for run in (*page.runs, *rest.runs)] == ["k1", "k2", "k3"]
    assert rest.next_page_token == ""
    assert [run.key for run in pending.runs] == ["k1", "k3"]


async def test_a_watcher_sees_each_step_end():
    with fake_server({"a": 1, "b": 2}, delays={"a": 0.1, "b": 0.2}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "p", {})
            seen = [dict(results.custom) async for results in client.watch_results("k")]
    assert seen == [{}, {"a": 1}, {"a": 1, "b": 2}]


async def test_errors_are_those_that_the_client_shall_raise():
    with fake_server({"a": 1}) as server:
        async with PrecomputeClient(server.address) as client:
            full = ResourceExhausted("full", retry_after=2.5)
            server.fail(full, method="StartPrecompute", times=1)
            with pytest.raises(ResourceExhausted, match="full") as exhausted:
                await client.start("k", "p", {})
            assert exhausted.value.retry_after == 2.5
            await client.start("k", "p", {})

            server.fail(ServiceError("broken", error_id="abc"))
            with pytest.raises(ServiceError, match="broken") as broken:
                await client.get_results("k")
            assert (broken.value.error_id, broken.value.code) == ("abc", grpc.StatusCode.INTERNAL)
            server.recover()
            await client.get_results("k")


async def test_clients_try_unavailable_again_and_a_server_that_stopped_comes_back():
    with fake_server({"a": 1}) as server:
        async with PrecomputeClient(server.address) as client:
            server.fail(ServiceUnavailable("away"), times=2)
            await client.start("k", "p", {})
            assert len(server.seen("StartPrecompute")) == 3
            server.stop()
            with pytest.raises(ServiceUnavailable):
                await client.get_results("k")
            server.start()

            async def back() -> bool:
                try:
                    return (await client.get_results("k")).custom == {"a": 1}
                except ServiceUnavailable:
                    return False

            await wait_until(back)


async def test_a_slow_service_is_slow():
    with fake_server({"a": 1}) as server:
        server.slow(NEVER, method="GetResults")
        async with PrecomputeClient(server.address, timeout=0.2) as client:
            await client.start("k", "p", {})
            with pytest.raises(Exception, match="Deadline") as caught:
                await client.get_results("k")
    assert type(caught.value).__name__ == "DeadlineExceeded"


async def test_requests_are_recorded():
    with fake_server({"a": 1}) as server:
        async with PrecomputeClient(server.address, namespace="shop", token="t") as client:
            await client.start("k", "p", {"n": 3})
    [request] = server.requests
    assert request.method == "StartPrecompute"
    assert (request.message.namespace, request.message.key) == ("shop", "k")
    assert request.inputs == {"n": 3}
    assert request.metadata["authorization"] == "Bearer t"


async def test_a_script_that_raises_is_told_to_the_test():
    with fake_server(lambda inputs: {"a": inputs["missing"]}) as server:
        async with PrecomputeClient(server.address) as client:
            with pytest.raises(ServiceError, match="cannot be followed: KeyError"):
                await client.start("k", "p", {})


def test_a_method_that_is_not_there_is_refused():
    server: FakeServer
    with fake_server() as server, pytest.raises(ValueError, match="no such method: GetResult;"):
        server.fail(NotFound(), method="GetResult")


def test_a_test_that_is_not_async_calls_it():
    with fake_server({"a": 1}) as server, grpc.insecure_channel(server.address) as channel:
        stub = PrecomputeServiceStub(channel)
        custom = pb.CustomSpec(pipeline="p")
        stub.StartPrecompute(pb.StartPrecomputeRequest(key="k", custom=custom), timeout=5)
        answer = stub.GetResults(pb.GetResultsRequest(key="k"), timeout=5)
    assert json_of(answer, "a") == 1
