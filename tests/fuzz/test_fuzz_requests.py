"""Requests to all eight methods of a real server: none may break it or get an answer of a bug."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from headstart.v1 import precompute_pb2 as pb
from tests.fuzz import budget
from tests.fuzz.messages import requests, seeds
from tests.fuzz.victim import METHODS, Call, Victim
from tests.fuzz.wire import mutated

_TOGETHER = 20
_MUTATED_TOGETHER = 1000


@pytest.mark.promise("Every request gets a status", "guard in `api/grpc_server`")
def test_any_message_of_the_contract_is_answered(victim: Victim):
    # Failures are shown as bytes and belong into the corpus; shrinking would ask a changed server.
    @seed(budget.SEED)
    @settings(
        max_examples=budget.cases(1_500, 24_000) // _TOGETHER,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests(), min_size=_TOGETHER, max_size=_TOGETHER))
    def send(calls: list[Call]) -> None:
        victim.call_all(calls)
        budget.count("messages", len(calls))

    send()
    victim.is_well()


def test_any_bytes_are_answered(victim: Victim):
    dice = budget.dice("bytes")
    good = seeds()
    left = budget.cases(3_000, 60_000)
    while left > 0:
        calls = []
        for _ in range(min(left, _MUTATED_TOGETHER)):
            _, data = dice.choice(good)
            method = dice.choice(list(METHODS))
            if dice.random() < 0.7:
                method, data = dice.choice(good)
            calls.append((method, mutated(data, dice)))
        victim.call_all(calls)
        budget.count("bytes", len(calls))
        left -= len(calls)
    victim.is_well()


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_the_callers_mistake(victim: Victim, method: str):
    codes = victim.call_all([(method, b"\xff"), (method, b"\x0a\x05ab"), (method, b"\x07")])
    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT}


def _many_inputs(number: int) -> bytes:
    request = pb.StartPrecomputeRequest(key="huge", custom=pb.CustomSpec(pipeline="noop"))
    more = request.custom.inputs.fields["more"].list_value.values
    more.extend([struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)] * number)
    return request.SerializeToString()


def _text(inputs: str) -> Call:
    spec = pb.CustomSpec(pipeline="noop", inputs_json=inputs)
    request = pb.StartPrecomputeRequest(key="huge", custom=spec)
    return "StartPrecompute", request.SerializeToString()


def _reported(**artifact: Any) -> Call:
    request = pb.ReportStepRequest(key="huge", revision=1, step="nothing", artifact=artifact)
    return "ReportStep", request.SerializeToString()


HUGE: dict[str, Call] = {
    "deep text": _text('{"value":' + "[" * 1_000_000),
    "closed deep text": _text('{"value":' + "[" * 500_000 + "]" * 500_000 + "}"),
    "digits": _text('{"value":' + "9" * 1_000_000 + "}"),
    "a name many times": _text("{" + ",".join(['"value":1'] * 100_000) + "}"),
    "wrong statuses": (
        "ListPrecomputes",
        pb.ListPrecomputesRequest(statuses=[99] * 2_000_000).SerializeToString(),
    ),
    "statuses": (
        "ListPrecomputes",
        pb.ListPrecomputesRequest(statuses=[3] * 4_000_000).SerializeToString(),
    ),
    "steps": (
        "GetResults",
        pb.GetResultsRequest(key="huge", required_steps=["x"] * 1_000_000).SerializeToString(),
    ),
    "combining marks": (
        "StartPrecompute",
        pb.StartPrecomputeRequest(
            key="huge",
            bridging=pb.BridgingSpec(
                anchor="e" + "\u0301\u0323" * 900_000, target="forest", recipient_type=1
            ),
        ).SerializeToString(),
    ),
    "a key": ("GetStatus", pb.GetStatusRequest(key="\u0301" * 2_000_000).SerializeToString()),
    "a token": (
        "ListPrecomputes",
        pb.ListPrecomputesRequest(page_token="A" * 4_000_000).SerializeToString(),
    ),
    "a deep artifact": _reported(json="[" * 1_000_000),
    "an artifact's digits": _reported(json="9" * 1_000_000),
    "many dimensions": _reported(tensor={"dtype": "int8", "shape": [2**62] * 100_000}),
    "a list of inputs": ("StartPrecompute", _many_inputs(900_000)),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_request_holds_up_nobody(victim: Victim, name: str):
    """None of them may take the server's only loop for long: another caller is answered meanwhile."""
    if name == "steps" or HUGE[name][0] == "ReportStep":
        victim.call_all(
            [
                (
                    "StartPrecompute",
                    pb.StartPrecomputeRequest(
                        key="huge", custom=pb.CustomSpec(pipeline="noop")
                    ).SerializeToString(),
                )
            ]
        )
    codes = victim.call_all([HUGE[name], ("GetStats", b"")])
    assert codes[0] in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK)
    assert codes[1] is grpc.StatusCode.OK
    budget.count("huge requests")
