"""The service in processes of its own: what callers, operators and replicas rely on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from tests.integration.conftest import GameServer, grpc_address
from tests.support.pipelines import REFERENCES, began
from tests.support.processes import (
    ROOT,
    SHORT_DRAIN,
    Service,
    api,
    headstart,
    health,
    run_headstart,
    serving,
    stub,
    worker,
)
from tests.support.requests import human_game, json_of, noop, probe, results
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
"""Settings of a service that knows the test pipelines alone, so its workers start at once."""


@pytest.fixture
async def light(valkey: Valkey) -> AsyncIterator[Service]:
    """An API process and a worker with the test pipelines."""
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(api(valkey.url, **LIGHT))
        await stack.enter_async_context(worker(valkey.url, **LIGHT))
        yield await stack.enter_async_context(stub(address))


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the shared server's Valkey."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared_address(shared_data: Path) -> Iterator[str]:
    """A server and a worker with the test pipelines, for all tests that can share them."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0", **SHORT_DRAIN}
    process = run_headstart("serve", HEADSTART_DATA_DIR=str(shared_data), **LIGHT, **ports)
    try:
        yield grpc_address(process)
    finally:
        process.stop()


@pytest.fixture
async def shared(shared_address: str) -> AsyncIterator[Service]:
    """Cheaper than `light`; but a test must have a key of its own, and count nothing."""
    async with stub(shared_address) as service:
        yield service


async def test_fifty_starts_through_three_replicas_run_the_pipeline_once(
    valkey: Valkey, tmp_path: Path
):
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(api(valkey.url, **LIGHT)) for _ in range(3)]
        for _ in range(2):
            await stack.enter_async_context(worker(valkey.url, **LIGHT))
        stubs = [await stack.enter_async_context(stub(address)) for _, address in apis]
        answers = await asyncio.gather(
            *(stubs[i % 3].StartPrecompute(probe("k", tmp_path)) for i in range(50))
        )
        outcomes = [answer.outcome for answer in answers]
        assert outcomes.count(pb.START_OUTCOME_STARTED) == 1
        assert outcomes.count(pb.START_OUTCOME_JOINED) == 49
        (tmp_path / "go").touch()
        ends = await asyncio.gather(*(each.GetResults(results("k", 20)) for each in stubs))
    assert {end.status for end in ends} == {pb.PRECOMPUTE_STATUS_COMPLETED}
    assert [line.split()[0] for line in began(tmp_path)] == ["first", "gated"]


async def test_other_inputs_replace_the_run_and_its_late_writes_change_nothing(
    shared: Service, tmp_path: Path
):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    await shared.StartPrecompute(probe("replaced", old, 1))
    await wait_until(lambda: len(began(old)) == 2)
    answer = await shared.StartPrecompute(probe("replaced", new, 2))
    assert answer.outcome == pb.START_OUTCOME_REPLACED
    assert answer.revision == 2
    (old / "go").touch()
    (new / "go").touch()
    end = await shared.GetResults(results("replaced", 20))
    assert end.revision == 2
    assert json_of(end, "gated") == 30


async def test_a_replaced_run_keeps_the_steps_whose_inputs_did_not_change(games: Service):
    await games.StartPrecompute(human_game("kept", "castle", "pepper"))
    before = await games.GetResults(results("kept", 20))
    request = human_game("kept", "castle", "pepper")
    request.bridging.null_sample_count = 7
    assert (await games.StartPrecompute(request)).outcome == pb.START_OUTCOME_REPLACED
    after = await games.GetResults(results("kept", 20))
    assert len(after.bridging.null_samples) == 7
    # The very same attempt, with the time it took then: it was not run again.
    for step in ("embed_endpoints", "lexical_bridge"):
        before.steps[step].origin = pb.STEP_ORIGIN_KEPT
        assert after.steps[step] == before.steps[step]
    assert after.steps["null_samples"] != before.steps["null_samples"]


async def test_what_exists_is_joined_reused_or_restarted(shared: Service):
    assert (await shared.StartPrecompute(noop("exists"))).outcome == pb.START_OUTCOME_STARTED
    await shared.GetResults(results("exists", 10))
    again = await shared.StartPrecompute(noop("exists"))
    assert again.outcome == pb.START_OUTCOME_REUSED
    assert again.status == pb.PRECOMPUTE_STATUS_COMPLETED
    anew = noop("exists")
    anew.restart = True
    started = await shared.StartPrecompute(anew)
    assert started.outcome == pb.START_OUTCOME_STARTED
    assert started.revision == 2


async def test_a_start_is_seen_at_once_through_the_replica_that_made_it(shared: Service):
    for value in range(20):
        started = await shared.StartPrecompute(noop("seen", value))
        answer = await shared.GetResults(results("seen", 10))
        assert answer.revision == started.revision
        assert json_of(answer, "nothing") == value


async def test_a_full_store_of_running_work_refuses_with_a_time_to_retry(
    valkey: Valkey, tmp_path: Path
):
    async with api(valkey.url, HEADSTART_MAX_CACHED_RESULTS="3", **LIGHT) as (_, address):
        async with stub(address) as service:
            for i in range(3):
                await service.StartPrecompute(probe(f"k{i}", tmp_path))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.StartPrecompute(probe("k3", tmp_path))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(refused.value, error_details_pb2.RetryInfo()).retry_delay.ToSeconds() >= 1
            stats = await service.GetStats(pb.GetStatsRequest())
    assert stats.status_counts == {"pending": 3}


async def test_bad_bridging_inputs_are_named_field_by_field(games: Service):
    async def fields(request: pb.StartPrecomputeRequest) -> set[str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await games.StartPrecompute(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return set(violations(refused.value))

    for word in ("", "x" * 10_000, "oc\x07ean", "🌊🌊", "12345"):
        assert await fields(human_game("k", word, "forest")) == {"bridging.anchor"}
        assert await fields(human_game("k", "forest", word)) == {"bridging.target"}
    assert await fields(human_game("k", " Ocean ", "ocean")) == {"bridging.target"}
    for count in (0, 1000):
        request = human_game("k", "", "")
        request.bridging.clue_count = count
        request.bridging.null_sample_count = 0
        request.ttl.seconds = -5
        assert await fields(request) == {
            "bridging.anchor", "bridging.target", "bridging.clue_count",
            "bridging.null_sample_count", "ttl",
        }  # fmt: skip
    request.namespace, request.key = "No Capitals", ""
    assert {"namespace", "key", "ttl", "bridging.anchor"} <= await fields(request)
    unspecified = pb.StartPrecomputeRequest(
        key="k", bridging=pb.BridgingSpec(anchor="ocean", target="forest")
    )
    assert await fields(unspecified) == {"bridging.recipient_type"}
    assert await fields(pb.StartPrecomputeRequest(key="k")) == {"spec"}
    custom = pb.StartPrecomputeRequest(key="k", custom=pb.CustomSpec(pipeline="no-such"))
    assert await fields(custom) == {"custom.pipeline"}
    with pytest.raises(grpc.aio.AioRpcError) as negative:
        await games.GetResults(results("k", -1))
    assert violations(negative.value) == ["wait"]
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await games.GetStatus(pb.GetStatusRequest(key="k"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_unknown_required_step_is_refused(shared: Service):
    await shared.StartPrecompute(noop("required"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shared.GetResults(results("required", 1, "nothing", "no_such_step"))
    assert violations(refused.value) == ["required_steps[1]"]


async def test_a_cancelled_run_stops_and_reports_its_cancellation(shared: Service, tmp_path: Path):
    await shared.StartPrecompute(probe("cancelled", tmp_path))
    await shared.GetResults(results("cancelled", 10, "first"))
    done = await shared.CancelPrecompute(pb.CancelPrecomputeRequest(key="cancelled"))
    assert done.cancelled
    answer = await shared.GetResults(results("cancelled"))
    assert answer.status == pb.PRECOMPUTE_STATUS_CANCELLED
    assert json_of(answer, "first") == 1
    again = await shared.CancelPrecompute(pb.CancelPrecomputeRequest(key="cancelled"))
    assert not again.cancelled


async def test_no_key_lacks_a_ttl_but_the_fixed_ones(
    shared: Service, shared_data: Path, tmp_path: Path
):
    await shared.StartPrecompute(noop("done"))
    await shared.StartPrecompute(probe("running", tmp_path))
    await shared.GetResults(results("done", 10))
    await shared.GetResults(results("running", 10, "first"))
    async with Redis(unix_socket_path=str(shared_data / "valkey.sock"), protocol=2) as client:
        keys = {key.decode(): await client.ttl(key) async for key in client.scan_iter()}
    runs = {name for name in keys if ":run:" in name}
    assert {"headstart:{0}:run:default:done", "headstart:{0}:run:default:running"} <= runs
    # Runs, the workers' reports, the live processes, and what namespaces had lately.
    others = {name for name, ttl in keys.items() if ttl > 0} - runs
    assert all(keys[name] > 0 for name in runs)
    kinds = {name.removeprefix("headstart:{0}:").partition(":served:")[0] for name in others}
    assert kinds == {"workers", "processes", "waiting"}


@pytest.mark.chaos
async def test_a_killed_worker_is_replaced_within_two_leases_and_nothing_runs_twice(
    valkey: Valkey, tmp_path: Path
):
    settings = {"HEADSTART_LEASE": "1.5", **LIGHT}
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(api(valkey.url, **settings))
        service = await stack.enter_async_context(stub(address))
        victim = await stack.enter_async_context(worker(valkey.url, **settings))
        await service.StartPrecompute(probe("k", tmp_path))
        await wait_until(lambda: len(began(tmp_path)) == 2)
        await stack.enter_async_context(worker(valkey.url, **settings))
        victim.kill()
        # Two leases, and what a busy machine adds; the default lease would take longer than this.
        await wait_until(lambda: len(began(tmp_path)) == 3, within=2 * 1.5 + 9)
        (tmp_path / "go").touch()
        answer = await service.GetResults(results("k", 20))
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
    names = [line.split()[0] for line in began(tmp_path)]
    assert names == ["first", "gated", "gated"]


async def test_sigterm_hands_unfinished_runs_to_another_worker_at_once(
    valkey: Valkey, tmp_path: Path
):
    settings = {"HEADSTART_DRAIN": "0.1", "HEADSTART_LEASE": "600", **LIGHT}
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(api(valkey.url, **settings))
        service = await stack.enter_async_context(stub(address))
        leaver = await stack.enter_async_context(worker(valkey.url, **settings))
        await service.StartPrecompute(probe("k", tmp_path))
        await wait_until(lambda: len(began(tmp_path)) == 2)
        leaver.send(signal.SIGTERM)
        assert await leaver.ended() == 0
        status = await service.GetStatus(pb.GetStatusRequest(key="k"))
        assert status.status == pb.PRECOMPUTE_STATUS_PENDING
        assert status.steps["first"] == pb.STEP_STATE_COMPLETED
        (tmp_path / "go").touch()
        # The lease is ten minutes: only a hand-over can be this quick.
        await stack.enter_async_context(worker(valkey.url, **settings))
        answer = await service.GetResults(results("k", 20))
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED


async def test_a_server_that_stops_answers_whoever_waits_with_what_exists(
    valkey: Valkey, tmp_path: Path
):
    async with AsyncExitStack() as stack:
        server, address = await stack.enter_async_context(api(valkey.url, **LIGHT))
        service = await stack.enter_async_context(stub(address))
        await stack.enter_async_context(worker(valkey.url, **LIGHT))
        await service.StartPrecompute(probe("k", tmp_path))
        await service.GetResults(results("k", 20, "first"))
        waiting = asyncio.ensure_future(service.GetResults(results("k", 60)))
        # Whatever the server got before this call it had when it got this call.
        await service.GetStatus(pb.GetStatusRequest(key="k"))
        server.send(signal.SIGTERM)
        answer = await waiting
        assert await server.ended() == 0
    assert answer.steps["gated"].state == pb.STEP_STATE_RUNNING
    assert json_of(answer, "first") == 1


async def test_a_store_that_is_away_is_told_soon_and_noticed_when_it_is_back(valkey: Valkey):
    async with api(valkey.url, **LIGHT) as (_, address), stub(address) as service:
        await service.StartPrecompute(noop("k"))
        await valkey.kill()
        for _ in range(5):
            # Had the call's own wait to pass first, the deadline would strike: DEADLINE_EXCEEDED.
            with pytest.raises(grpc.aio.AioRpcError) as away:
                await service.GetResults(results("k", 60), timeout=5)
            assert away.value.code() is grpc.StatusCode.UNAVAILABLE
            assert detail(away.value, error_details_pb2.RetryInfo()).retry_delay.ToSeconds() >= 1

        async def is_not_serving() -> bool:
            return await health(address) == "NOT_SERVING"

        async def is_serving() -> bool:
            return await health(address) == "SERVING"

        await wait_until(is_not_serving)
        await valkey.start()
        await wait_until(is_serving)
        assert (await service.GetResults(results("k"))).key == "k"


async def test_nothing_serves_before_the_store_answers():
    port = free_port()
    async with headstart(
        "serve",
        "--no-worker",
        HEADSTART_REDIS_URL=f"redis://127.0.0.1:{port}",
        HEADSTART_GRPC_PORT="0",
        HEADSTART_HTTP_PORT="0",
        **LIGHT,
    ) as process:
        found = await process.says(r"gRPC on (\S+), HTTP on")
        await process.says("waiting for Redis")
        assert await health(found[1]) == "NOT_SERVING"
        assert await health(found[1], "") == "NOT_SERVING"


async def test_a_second_server_on_one_data_directory_is_refused(tmp_path: Path):
    settings = {"HEADSTART_DATA_DIR": str(tmp_path), **LIGHT}
    async with (
        serving(**settings) as (first, _),
        headstart("serve", HEADSTART_GRPC_PORT="0", HEADSTART_HTTP_PORT="0", **settings) as second,
    ):
        assert await second.ended() == 2
        assert f"another server (process {first.pid}) uses {tmp_path}" in second.output
        assert "Traceback" not in second.output


@pytest.mark.chaos
async def test_a_killed_worker_child_is_started_again(tmp_path: Path):
    async with serving(HEADSTART_DATA_DIR=str(tmp_path), **LIGHT) as (server, address):
        (child,) = (pid for pid in _descendants(server.pid) if b"\0worker\0" in _command(pid))
        os.kill(child, signal.SIGKILL)
        await server.says("the worker ended with code -9")
        async with stub(address) as service:
            await service.StartPrecompute(noop("k"))
            answer = await service.GetResults(results("k", 20))
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED


async def test_a_taken_port_is_reported_by_its_setting(tmp_path: Path):
    async with serving(HEADSTART_DATA_DIR=str(tmp_path / "a"), **LIGHT) as (_, address):
        port = address.rpartition(":")[2]
        async with headstart(
            "serve",
            HEADSTART_GRPC_PORT=port,
            HEADSTART_HTTP_PORT="0",
            HEADSTART_DATA_DIR=str(tmp_path / "b"),
            **LIGHT,
        ) as second:
            assert await second.ended() == 2
            assert f"HEADSTART_GRPC_PORT: cannot listen on 127.0.0.1 port {port}" in second.output


async def test_grpcurl_finds_and_calls_the_service_by_reflection(game_server: GameServer):
    listed = await grpcurl(game_server.address, "list")
    assert "headstart.v1.PrecomputeService" in listed
    # The line that `serve` prints.
    data = (
        '{"key": "grpcurl", "bridging": {"anchor": "ocean", "target": "forest", '
        '"recipient_type": "RECIPIENT_TYPE_HUMAN"}}'
    )
    method = "headstart.v1.PrecomputeService/StartPrecompute"
    answer = json.loads(await grpcurl("-d", data, game_server.address, method))
    assert answer["outcome"] == "START_OUTCOME_STARTED"
    read = '{"key": "grpcurl", "wait": "20s"}'
    method = "headstart.v1.PrecomputeService/GetResults"
    answer = json.loads(await grpcurl("-d", read, game_server.address, method))
    assert len(answer["bridging"]["anchor_embedding"]) == 384
    assert answer["steps"]["lexical_bridge"]["state"] == "STEP_STATE_COMPLETED"


async def grpcurl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        ROOT / ".venv" / "bin" / "grpcurl",
        "-plaintext",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def violations(error: grpc.aio.AioRpcError) -> list[str]:
    return [v.field for v in detail(error, error_details_pb2.BadRequest()).field_violations]


def detail(error: grpc.aio.AioRpcError, message):
    """The error's detail of this message's type."""
    status = rpc_status.from_call(error)
    assert status is not None
    (packed,) = (d for d in status.details if d.Is(message.DESCRIPTOR))
    packed.Unpack(message)
    return message


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
