"""JSON requests: what is accepted, and the path and the rule of what is not."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain.errors import InvalidRequest
from headstart_service.http.connect.codecs import MAX_JSON, JsonCodec, ProtoCodec, json_of
from headstart_service.http.connect.errors import Refused
from headstart_service.http.connect.json_requests import request_from_json
from tests.support.waiting import wait_until

START, GET, REPORT = pb.StartPrecomputeRequest, pb.GetResultsRequest, pb.ReportStepRequest


def refused(kind: Any, value: Any) -> dict[str, str]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(InvalidRequest) as caught:
        request_from_json(kind, data)
    return {each.field: each.description for each in caught.value.violations}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (GET, {}),
        (GET, {"key": None, "wait": "1.5s", "requiredSteps": ["a"], "minRevision": "3"}),
        (GET, {"required_steps": ["a"], "min_revision": 3.0}),
        (START, {"bridging": {"recipientType": "RECIPIENT_TYPE_HUMAN", "clueCount": "5"}}),
        (START, {"bridging": {"recipientType": 1}, "restart": True}),
        (START, {"custom": {"inputs": {"a": [1, {"b": None}], "fooBar": "x"}}, "ttl": "-1s"}),
        (pb.ListPrecomputesRequest, {"statuses": ["PRECOMPUTE_STATUS_PENDING", 2]}),
    ],
)
def test_proto_json_is_accepted(kind: Any, value: Any) -> None:
    request = request_from_json(kind, json.dumps(value).encode())
    again = request_from_json(kind, json.dumps(MessageToDict(request)).encode())
    assert again == request


@pytest.mark.parametrize(
    ("kind", "value", "field", "rule"),
    [
        (GET, {"keys": "a"}, "keys", "is no field of headstart.v1.GetResultsRequest"),
        (GET, {"key": 5}, "key", "must be text, is 5"),
        (GET, {"key": ["a"]}, "key", "must be text, is a list"),
        (GET, b'{"key":"\\ud800"}', "key", "lone surrogates"),
        (GET, b'{"\\ud800":1}', "\ufffd", "is no field"),
        (pb.ListPrecomputesRequest, b'{"statuses":["\\ud800"]}', "statuses[0]", "must be one of"),
        (START, b'{"custom":{"inputs":{"\\ud800":1}}}', "custom.inputs", "names in Unicode text"),
        (START, b'{"custom":{"inputs":{"a":["\\ud800"]}}}', "custom.inputs.a.0", "lone surrogates"),
        (
            START,
            {"custom": {"inputs": {"a": [10**400]}}},
            "custom.inputs.a.0",
            "of a double, is 100",
        ),
        (START, b'{"custom":{"inputs":{"a":-1e400}}}', "custom.inputs.a", "is -Infinity"),
        (REPORT, {"bridging": {"nullSamples": [10**400]}}, "bridging.null_samples[0]", "a double"),
        (REPORT, {"bridging": {"nullSamples": ["1e400"]}}, "bridging.null_samples[0]", "a double"),
        (
            REPORT,
            {"bridging": {"anchorEmbedding": [0.5, 1e39]}},
            "bridging.anchor_embedding[1]",
            "must be a number within the range of a float, is 1e+39",
        ),
        (GET, {"wait": 5}, "wait", 'such as "1.5s", is 5'),
        (GET, {"wait": "soon"}, "wait", "must be seconds as text"),
        (GET, {"wait": " 1s"}, "wait", "must be seconds as text"),
        (GET, {"wait": "1_0s"}, "wait", "must be seconds as text"),
        (GET, {"wait": "\u0661s"}, "wait", "must be seconds as text"),
        (GET, {"wait": "9999999999999s"}, "wait", "must be seconds as text"),
        (GET, {"minRevision": "x"}, "min_revision", "must be a whole number"),
        (GET, {"minRevision": 2**63}, "min_revision", "must be a whole number"),
        (GET, {"minRevision": True}, "min_revision", "is true"),
        (GET, {"minRevision": 1.5}, "min_revision", "is 1.5"),
        (GET, b'{"minRevision":1e400}', "min_revision", "must be a whole number"),
        (GET, {"requiredSteps": "a"}, "required_steps", "must be a list"),
        (GET, {"requiredSteps": ["a", None]}, "required_steps[1]", "must be text, is null"),
        (GET, {"key": "a" * 100, "a" * 100: 1}, "a" * 59 + "…", "is no field"),
        (START, {"custom": {"foo": 1}}, "custom.foo", "which has: pipeline, inputs, inputsJson"),
        (START, {"custom": [], "key": "k"}, "custom", "must be a JSON object, is a list"),
        (START, {"custom": {"inputs": 5}}, "custom.inputs", "must be a JSON object"),
        (START, {"custom": {}, "bridging": {}}, "spec", "must be given once"),
        (START, {"requestId": "a", "request_id": "b"}, "request_id", "must be given once"),
        (START, {"restart": "true"}, "restart", "must be true or false"),
        (
            START,
            {"bridging": {"recipientType": "HUMAN"}},
            "bridging.recipient_type",
            "must be one of RECIPIENT_TYPE_UNSPECIFIED, RECIPIENT_TYPE_HUMAN",
        ),
        (START, {"bridging": {"recipientType": 9}}, "bridging.recipient_type", "must be one of"),
        (START, {"bridging": {"recipientType": []}}, "bridging.recipient_type", "must be one of"),
        (GET, {"requiredSteps": [0] * 1001}, "required_steps", "must be at most 1000, are 1001"),
        (GET, b"", "request", "must be JSON: Expecting value: line 1 column 1"),
        (GET, b"{", "request", "line 1 column 2"),
        (GET, b"5", "request", "must be a JSON object, is 5"),
        (GET, b"null", "request", "must be a JSON object, is null"),
        (GET, b'{"key":NaN}', "request", "must not hold NaN"),
        (GET, b'{"key":"a","key":"b"}', "request", "has 'key' twice"),
        (GET, b'{"key":' + b"1" * 5000 + b"}", "request", "at most 640 digits"),
        (START, b'{"custom":{"inputs":' + b'{"a":' * 150 + b"1" + b"}" * 152, "request", "deep"),
        (GET, b"\xff", "request", "must be UTF-8, is not at byte 0"),
    ],
)
def test_a_mistake_is_named_by_its_path(kind: Any, value: Any, field: str, rule: str) -> None:
    found = refused(kind, value)
    assert field in found
    assert rule in found[field]


def test_all_mistakes_are_named_up_to_a_hundred() -> None:
    assert list(refused(GET, {"key": 1, "wait": 2, "requiredSteps": [3]})) == [
        "key",
        "wait",
        "required_steps[0]",
    ]
    assert len(refused(GET, {"requiredSteps": [0] * 1000})) == 100


def test_a_name_that_is_given_twice_is_found_in_one_pass() -> None:
    names = [*map(str, range(100_000)), "99999"]
    body = "{" + ",".join(f'"{name}":0' for name in names) + "}"
    began = time.process_time()
    assert "has '99999' twice" in refused(START, body.encode())["request"]
    # One pass takes some 0.1 s, a pass for each name minutes.
    assert time.process_time() - began < 10


def test_numbers_that_no_json_has_are_left_to_the_method() -> None:
    data = {"bridging": {"nullSamples": ["NaN", "-Infinity", "1e3", 10**300]}}
    found = request_from_json(REPORT, json.dumps(data).encode()).bridging.null_samples
    assert math.isnan(found[0])
    assert found[1:] == [-math.inf, 1000.0, 1e300]


def test_bytes_are_base_64() -> None:
    for text, valid in (("AAE=", True), ("AAE", True), ("_-8", True), ("A", False), ("é", False)):
        data = json.dumps({"artifact": {"data": text}})
        if valid:
            assert request_from_json(REPORT, data.encode()).artifact.data
        else:
            assert "base 64" in refused(REPORT, data.encode())["artifact.data"]


async def test_a_large_response_is_converted_once() -> None:
    response = pb.GetResultsResponse(key="k", error="x" * 20_000).SerializeToString()
    codec = JsonCodec(kept_bytes=50_000)
    first = await codec.encode(pb.GetResultsResponse, response)
    assert json.loads(first)["error"] == "x" * 20_000
    assert await codec.encode(pb.GetResultsResponse, response) is first
    await codec.encode(pb.GetResultsResponse, response.replace(b"k", b"j", 1))
    assert await codec.encode(pb.GetResultsResponse, response) is not first
    assert codec.size <= 50_000


async def test_a_converted_response_is_kept_for_a_bounded_time() -> None:
    codec = JsonCodec(kept_bytes=50_000, kept_for=0.05)
    for key in "abc":  # the third evicts the first, and its timer
        response = pb.GetResultsResponse(key=key, error="x" * 10_000).SerializeToString()
        await codec.encode(pb.GetResultsResponse, response)
    assert codec.size
    await wait_until(lambda: codec.size == 0)


def test_text_of_any_language_is_as_it_is() -> None:
    status = pb.GetStatusResponse(key="été")
    data = status.SerializeToString()
    assert json_of(pb.GetStatusResponse, data) == '{"key":"été"}'.encode()


async def test_a_response_that_is_too_large_for_json_is_refused() -> None:
    data = b"x" * (MAX_JSON + 1)
    with pytest.raises(Refused, match="application/proto") as caught:
        await JsonCodec().encode(pb.GetResultsResponse, data)
    assert caught.value.http_status == 406
    assert await ProtoCodec().encode(pb.GetResultsResponse, data) is data
