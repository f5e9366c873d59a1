"""`headstart.testing.fake_server` refuses the mistakes that the service refuses, in its words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headstart import (
    PrecomputeClient,
)
from headstart.v1 import precompute_pb2 as pb
from tests.integration.fake.conftest import inputs_of
from tests.support.processes import Service, stub

LONG = 30.0
DAY = 86_400.0
Send = Callable[[Service], Any]


def _seconds(message: Any, field: str, value: float) -> Any:
    getattr(message, field).FromNanoseconds(round(value * 1e9))
    return message


def _start(key: str = "k", **more: Any) -> pb.StartPrecomputeRequest:
    return pb.StartPrecomputeRequest(key=key, **({"custom": {"pipeline": "noop"}} | more))


def _start_game(**more: Any) -> pb.StartPrecomputeRequest:
    spec: dict[str, Any] = {"anchor": "ocean", "target": "forest", "recipient_type": 1}
    return pb.StartPrecomputeRequest(key="k", bridging=spec | more)


def _start_with(**inputs: Any) -> pb.StartPrecomputeRequest:
    request = _start(custom={"pipeline": "bridging"})
    request.custom.inputs.update(inputs)
    return request


def _report(**more: Any) -> pb.ReportStepRequest:
    fields: dict[str, Any] = {"key": "run", "revision": 1, "step": "first"}
    return pb.ReportStepRequest(**(fields | more))


def _of_game(step: str, **results: Any) -> pb.ReportStepRequest:
    return _report(key="game", step=step, bridging=results)


ONE: dict[str, Any] = {"json": "1"}


ODD_GAME = (
    '{"anchor": 9007199254740993, "target": null, "clue_count": %s, "recipient_type": ["human"]}'
)
ODD_GAME %= 10**30
ODDER_GAME = '{"anchor": [1], "target": {}, "clue_count": true, "null_sample_count": -1%s}' % (
    "0" * 50
)
MISSPELT = '{"anchr": 1, "targett": 2, "recipient_type": "human", "a\\n": 3, "%s": 4}' % ("é" * 70)
BAD_TEXTS = (
    "[]",
    "{",
    '{"value": NaN}',
    '{"value": 1e400}',
    '{"a": 1, "a": 2}',
    r'{"a": "\ud800"}',
)

BAD_TENSORS: tuple[dict[str, Any], ...] = (
    {},
    {"dtype": "flaot32", "data": b"1234"},
    {"dtype": "float32", "shape": [2, 2], "data": b"1234"},
    {"dtype": "int8", "shape": [-1]},
    {"dtype": "int8", "shape": [2**62, 2]},
    {"dtype": "int8", "shape": [1] * 65, "data": b"1"},
    {"dtype": "bool", "data": b"1"},
)

CURSORS = [pb.PartialCursor(), pb.PartialCursor(step="a", generation=-1, offset=-2, key="other")]
MISTAKES: dict[str, list[Any]] = {
    "StartPrecompute": [
        pb.StartPrecomputeRequest(),
        pb.StartPrecomputeRequest(namespace="No", key="k" * 257),
        _start(key="a\nb"),
        _start(request_id="x" * 65),
        _start(key="", request_id="a b"),
        _start(request_id="é"),
        _start(custom={"pipeline": "unheard of"}),
        _start(custom={"pipeline": "Prob"}),
        _start(custom={"pipeline": "bridging", "inputs_json": MISSPELT}),
        _seconds(_start(), "ttl", 0),
        _seconds(_seconds(_start(), "ttl", 7 * DAY + 1), "expected_need_in", -1),
        _seconds(_start(), "expected_need_in", 7 * DAY + 0.5),
        _start_with(anchor=math.nan),
        pb.StartPrecomputeRequest(key="k", bridging={}),
        _start_game(anchor="Forest "),
        _start_game(anchor="x" * 65, target="42"),
        _start_game(anchor="y" * 1025, target="a\tb"),
        _start_game(clue_count=0, null_sample_count=10_001),
        _start_game(clue_count=51, recipient_type=7),
        _start(custom={"pipeline": "bridging", "inputs_json": ODD_GAME}),
        _start(custom={"pipeline": "bridging", "inputs_json": ODDER_GAME}),
        *(_start(custom={"pipeline": "noop", "inputs_json": text}) for text in BAD_TEXTS),
        _start(custom={"pipeline": "noop", "inputs_json": "{}", "inputs": {}}),
        _start_with(anchor=2**53 + 1, more=[{"a": -1e300}]),
        _start_with(),
        _start_with(anchor=3, target="a", recipient_type="dog", clue_count=2.5, more=True),
        _start_with(anchor="a", target="b", recipient_type="human", clue_count="2"),
        _start_with(anchor="a", target="b", recipient_type="human", clue_count=51),
    ],
    "GetResults": [
        pb.GetResultsRequest(key="k", partial_cursors=CURSORS),
        pb.GetResultsRequest(),
        pb.GetResultsRequest(key="nobody"),
        pb.GetResultsRequest(namespace="no one", key="\u2028"),
        _seconds(pb.GetResultsRequest(key="run"), "wait", -1),
        _seconds(pb.GetResultsRequest(key=""), "wait", 601),
        pb.GetResultsRequest(key="run", required_steps=["first"] * 1001),
        pb.GetResultsRequest(key="run", result_steps=["x"], required_steps=["first", "y"]),
        pb.GetResultsRequest(key="run", required_steps=["first", "x", "y"]),
        pb.GetResultsRequest(key="run", required_steps=["frist", "Gated", "é" * 50]),
        pb.GetResultsRequest(key="run", required_steps=["x"], min_revision=2),
        pb.GetResultsRequest(key="run", min_revision=-5),
        pb.GetResultsRequest(namespace="A;", key="run", min_revision=-(2**63)),
        _seconds(pb.GetResultsRequest(key="run", required_steps=["x", "first"]), "wait", 600),
        pb.GetResultsRequest(key="game", required_steps=["null_samples", "x"]),
    ],
    "BatchStartPrecomputes": [
        pb.BatchStartPrecomputesRequest(),
        pb.BatchStartPrecomputesRequest(requests=[pb.StartPrecomputeRequest(key="a")] * 1001),
    ],
    "BatchGetResults": [
        pb.BatchGetResultsRequest(),
        pb.BatchGetResultsRequest(namespace="A B", keys=["a", "", "\0"], min_ready=-1),
        _seconds(pb.BatchGetResultsRequest(keys=["a"], min_ready=2), "wait", 601),
        pb.BatchGetResultsRequest(keys=["a"] * 1001, result_steps=["a"] * 1001),
    ],
    "WatchResults": [
        pb.WatchResultsRequest(key="k", partial_cursors=CURSORS),
        pb.WatchResultsRequest(keys=["k"], partial_results=True, partial_cursors=CURSORS),
        pb.WatchResultsRequest(),
        pb.WatchResultsRequest(key="nobody"),
        pb.WatchResultsRequest(key="run", keys=["a"]),
        pb.WatchResultsRequest(keys=["a", "k" * 300]),
        pb.WatchResultsRequest(key="run", result_steps=["first", "x"]),
    ],
    "GetStatus": [pb.GetStatusRequest(namespace="ä"), pb.GetStatusRequest(key="nobody")],
    "CancelPrecompute": [
        pb.CancelPrecomputeRequest(namespace="A;", key="\0"),
        pb.CancelPrecomputeRequest(key="nobody"),
        pb.CancelPrecomputeRequest(key="nobody", revision=-1),
        pb.CancelPrecomputeRequest(namespace="A;", key="run", revision=-(2**63)),
    ],
    "DeletePrecompute": [
        pb.DeletePrecomputeRequest(namespace="A;", key=""),
        pb.DeletePrecomputeRequest(key="nobody", revision=-1),
    ],
    "TouchPrecompute": [
        pb.TouchPrecomputeRequest(namespace="A;", key="\0", revision=-1),
        pb.TouchPrecomputeRequest(key="nobody"),
        pb.TouchPrecomputeRequest(key="run", revision=7),
        _seconds(pb.TouchPrecomputeRequest(key="run"), "ttl", 0),
        _seconds(pb.TouchPrecomputeRequest(key="run"), "ttl", 7 * DAY + 1),
    ],
    "ListPrecomputes": [
        pb.ListPrecomputesRequest(namespace="A;", page_size=-1, page_token="!"),
        pb.ListPrecomputesRequest(page_size=1001, statuses=[0, 1, 9]),
        pb.ListPrecomputesRequest(page_token="bm8="),
        pb.ListPrecomputesRequest(statuses=[1] * 1001),
        pb.ListPrecomputesRequest(key_prefix="k" * 257, pipeline="a b"),
        pb.ListPrecomputesRequest(namespace="n", key_prefix="k\0", pipeline="p" * 65),
    ],
    "ListPipelines": [
        pb.ListPipelinesRequest(page_size=-1, page_token="!"),
        pb.ListPipelinesRequest(page_size=1001, page_token="bm8="),
    ],
    "GetStats": [pb.GetStatsRequest(namespace="A B")],
    "ReportStep": [
        pb.ReportStepRequest(),
        pb.ReportStepRequest(namespace="A;", key="k" * 300, revision=-1),
        _seconds(_report(artifact=ONE), "elapsed", -0.5),
        _seconds(_report(artifact=ONE), "elapsed", 7 * DAY + 1),
        _report(artifact={"data": b"x" * (1 << 20)}),
        _report(key="nobody", artifact=ONE),
        _report(step="x", artifact=ONE),
        _report(step="frist", artifact=ONE),
        _report(step="x", bridging={"haiku_clues": ["a"]}),
        _report(artifact={}),
        *(_report(artifact={"json": text}) for text in (*BAD_TEXTS[1:], "", "1 2", "[" * 101)),
        *(_report(artifact={"tensor": tensor}) for tensor in BAD_TENSORS),
        _report(key="game", step="null_samples", artifact=ONE),
        _report(key="game", step="x", bridging={}),
        _of_game("null_samples"),
        _of_game("null_samples", null_samples=[2, 1], haiku_clues=["a"]),
        _of_game("null_samples", null_samples=[2, 1]),
        _of_game("null_samples", null_samples=[math.nan]),
        _of_game("embed_endpoints", anchor_embedding=[1], target_embedding=[1]),
        _of_game(
            "embed_endpoints", anchor_embedding=[1], target_embedding=[1, 2], embedding_model="m"
        ),
        _of_game("lexical_bridge", lexical_bridge=["a", "b"], lexical_embeddings=[{"values": [1]}]),
        _of_game(
            "lexical_bridge",
            lexical_bridge=["a", "b"],
            lexical_embeddings=[{"values": [1]}, {"values": [math.inf]}],
        ),
        _of_game("haiku_embeddings", haiku_embeddings=[{"values": []}, {"values": [1]}]),
    ],
}


async def _refusal(service: Service, method: str, request: Any) -> tuple[str, list[Any]]:
    """The code, and the violations as (field, rule)."""
    call = getattr(service, method)(request, timeout=LONG)
    try:
        if method == "WatchResults":
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        told = error_details_pb2.BadRequest()
        for detail in status.details if status else ():
            assert detail.Unpack(told)
        return error.code().name, [(v.field, v.description) for v in told.field_violations]
    return "OK", []


async def test_the_same_mistakes_are_refused_with_the_same_violations(
    idle_fake: str, idle_real: str, tmp_path: Path
):
    answers: list[list[Any]] = []
    for address in (idle_fake, idle_real):
        async with PrecomputeClient(address) as client, stub(address) as service:
            await client.start("run", "probe", inputs_of(tmp_path))
            await client.start_bridging("game", "ocean", "forest")
            answers.append(
                [
                    (method, number, *await _refusal(service, method, request))
                    for method, requests in MISTAKES.items()
                    for number, request in enumerate(requests)
                ]
            )
    differ = [pair for pair in zip(*answers, strict=True) if pair[0] != pair[1]]
    assert differ == []
    told = {(code, bool(violations)) for _, _, code, violations in answers[1]}
    assert told == {("INVALID_ARGUMENT", True), ("NOT_FOUND", False)}
