"""What PrecomputeClient sends."""

import math
import re
from datetime import timedelta
from typing import Any

import grpc
import pytest

from headstart import InvalidRequest, NotFound, Page, PrecomputeClient, RunSummary, Started
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import Fault
from tests.unit.client.messages import CREATED, STARTED


async def test_start_bridging_sends_its_arguments_and_returns_the_outcome(service: Any) -> None:
    service.on("StartPrecompute", STARTED)

    async with PrecomputeClient(service.address) as client:
        started = await client.start_bridging(
            "game-1",
            "ocean",
            "forest",
            "haiku",
            clue_count=7,
            null_sample_count=50,
            ttl=timedelta(minutes=2),
            restart=True,
            request_id="once",
            expected_need_in=45,
        )

    assert started == Started(
        namespace="default", key="game-1", outcome="replaced", status="pending", revision=4
    )
    expected = pb.StartPrecomputeRequest(
        key="game-1",
        bridging=pb.BridgingSpec(
            anchor="ocean",
            target="forest",
            recipient_type=pb.RECIPIENT_TYPE_HAIKU,
            clue_count=7,
            null_sample_count=50,
        ),
        restart=True,
        request_id="once",
    )
    expected.ttl.FromSeconds(120)
    expected.expected_need_in.FromSeconds(45)
    assert service.calls[0].request == expected


async def test_a_restart_has_one_random_request_id_in_all_its_attempts(service: Any) -> None:
    away = Fault(grpc.StatusCode.UNAVAILABLE)
    service.on("StartPrecompute", away, away, STARTED)

    async with PrecomputeClient(service.address) as client:
        await client.start("game-1", "words", {}, restart=True)
        await client.start_bridging("game-1", "ocean", "forest", restart=True)
        await client.start("game-1", "words", {})

    *attempts, other, plain = [call.request.request_id for call in service.calls]
    assert len(attempts) == 3
    assert len(set(attempts)) == 1
    assert re.fullmatch(r"[A-Za-z0-9._-]{16}", attempts[0])
    assert re.fullmatch(r"[A-Za-z0-9._-]{16}", other)
    assert other != attempts[0]
    assert plain == "", "only a restart needs one"


async def test_start_bridging_leaves_defaults_to_the_server(service: Any) -> None:
    service.on("StartPrecompute", STARTED)

    async with PrecomputeClient(service.address) as client:
        await client.start_bridging("game-1", "ocean", "forest")

    request = service.calls[0].request
    assert request.bridging.recipient_type == pb.RECIPIENT_TYPE_HUMAN
    assert not request.bridging.HasField("clue_count")
    assert not request.bridging.HasField("null_sample_count")
    assert not request.HasField("ttl")
    assert not request.HasField("expected_need_in")


async def test_an_unknown_recipient_is_refused_as_the_server_would(service: Any) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match="must be 'human' or 'haiku', not 'robot'") as no:
            await client.start_bridging("game-1", "ocean", "forest", "robot")

    assert [each.field for each in no.value.violations] == ["bridging.recipient_type"]
    assert service.calls == []


async def test_start_sends_json_inputs(service: Any) -> None:
    service.on("StartPrecompute", STARTED)
    inputs = {"é": "x\n", "list": (2**53 + 1, 1.0, -0.0, None, True), "deep": {"a": ["b"]}}

    async with PrecomputeClient(service.address) as client:
        await client.start("game-1", "words", inputs, ttl=1.5)
        await client.start("game-1", "words", {})

    first, second = (call.request for call in service.calls)
    assert first.custom.pipeline == "words"
    expected = '{"é":"x\\n","list":[9007199254740993,1.0,-0.0,null,true],"deep":{"a":["b"]}}'
    assert first.custom.inputs_json == expected
    assert first.ttl.ToTimedelta() == timedelta(seconds=1.5)
    assert second.custom.inputs_json == "{}"
    assert not second.custom.HasField("inputs")


async def test_inputs_that_json_cannot_express_are_refused_each_by_its_path(service: Any) -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    async with PrecomputeClient(service.address) as client:

        async def refused(inputs: Any) -> dict[str, str]:
            with pytest.raises(InvalidRequest) as caught:
                await client.start("game-1", "words", inputs)
            return {each.field: each.description for each in caught.value.violations}

        wrong = {
            "when": CREATED,
            "a": [1, {"b": math.nan}],
            "c": {1: 2},
            "d": "\ud800",
            "e": 10**640,
        }
        assert await refused(wrong) == {
            "custom.inputs.when": "must be what JSON can express, is datetime: "
            "convert it, to text for example",
            "custom.inputs.a.1.b": "must be a finite number, is nan: JSON has no such number",
            "custom.inputs.c": "must have text as names, has '1'",
            "custom.inputs.d": "must be Unicode text, has a lone surrogate",
            "custom.inputs.e": "must have at most 640 digits",
        }
        deepest: Any = 1
        for _ in range(99):
            deepest = [deepest]
        for too_deep in (endless, [deepest]):
            assert set((await refused({"x": too_deep})).values()) == {
                "must nest at most 100 objects and arrays"
            }
        assert service.calls == []
        service.on("StartPrecompute", STARTED)
        await client.start("game-1", "words", {"x": deepest, "id": 10**640 - 1})


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e12])
async def test_a_duration_that_protobuf_cannot_hold_is_refused(
    service: Any, seconds: float
) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match="wait: must be a number of seconds"):
            await client.get_results("game-1", wait=seconds)
        with pytest.raises(InvalidRequest, match="ttl: must be a number of seconds"):
            await client.start("game-1", "words", {}, ttl=seconds)

    assert service.calls == []


async def test_list_asks_for_pages_until_the_last(service: Any) -> None:
    def page(keys: str, token: str) -> pb.ListPrecomputesResponse:
        runs = [
            pb.PrecomputeSummary(key=key, status=pb.PRECOMPUTE_STATUS_COMPLETED) for key in keys
        ]
        return pb.ListPrecomputesResponse(precomputes=runs, next_page_token=token)

    service.on("ListPrecomputes", page("ab", "t1"), page("", "t2"), page("c", ""))

    async with PrecomputeClient(service.address) as client:
        keys = [run.key async for run in client.list(page_size=2, statuses=["completed", "failed"])]

    requests = [call.request for call in service.calls]
    assert keys == ["a", "b", "c"]
    assert [request.page_token for request in requests] == ["", "t1", "t2"]
    assert {request.page_size for request in requests} == {2}
    assert {tuple(request.statuses) for request in requests} == {
        (pb.PRECOMPUTE_STATUS_COMPLETED, pb.PRECOMPUTE_STATUS_FAILED)
    }


async def test_list_page_returns_one_page_and_where_to_go_on(service: Any) -> None:
    service.on(
        "ListPrecomputes",
        pb.ListPrecomputesResponse(
            precomputes=[pb.PrecomputeSummary(key="a", status=pb.PRECOMPUTE_STATUS_PENDING)],
            next_page_token="t2",
        ),
    )

    async with PrecomputeClient(service.address) as client:
        page = await client.list_page(page_token="t1")
        with pytest.raises(
            InvalidRequest, match=r"statuses\[1\]: did you mean 'completed'\? must be one of"
        ):
            await client.list_page(statuses=["failed", "complete"])

    assert page == Page(
        runs=(
            RunSummary(
                namespace="",
                key="a",
                pipeline="",
                revision=0,
                status="pending",
                created_at=None,
                started_at=None,
                completed_at=None,
                expires_at=None,
                error=None,
            ),
        ),
        next_page_token="t2",
    )
    assert service.calls[0].request.page_token == "t1"


async def test_every_call_takes_the_clients_namespace_unless_it_names_its_own(service: Any) -> None:
    service.on("WatchResults", [Fault(grpc.StatusCode.NOT_FOUND)])
    service.on("StartPrecompute", Fault(grpc.StatusCode.NOT_FOUND))

    async def drain(iterator: Any) -> None:
        async for _ in iterator:
            pass

    async with PrecomputeClient(service.address, namespace="games") as client:
        for own in ({}, {"namespace": "other"}, {"namespace": ""}):
            for call in (
                client.start_bridging("k", "a", "b", **own),
                client.start("k", "p", {}, **own),
                client.get_results("k", **own),
                drain(client.watch_results("k", **own)),
                client.get_status("k", **own),
                client.cancel("k", **own),
                drain(client.list(**own)),
                client.list_page(**own),
                client.get_stats(**own),
            ):
                with pytest.raises(NotFound):
                    await call

    namespaces = [call.request.namespace for call in service.calls]
    assert namespaces == ["games"] * 9 + ["other"] * 9 + [""] * 9
