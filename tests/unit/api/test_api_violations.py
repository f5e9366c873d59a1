"""A wrong request is refused with everything that is wrong with it, and reaches no store."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.dependencies import Call
from headstart_service.domain.errors import InvalidRequest
from tests.unit.api.conftest import methods_of

LONG = "x" * 10_000
GAME = {"anchor": "ocean", "target": "forest", "recipient_type": pb.RECIPIENT_TYPE_HUMAN}
CONTROL = "must not contain control characters"


async def violations(method: str, request: Any) -> dict[str, str]:
    servicer = methods_of()
    with pytest.raises(InvalidRequest) as caught:
        answer = getattr(servicer, method)(request, Call())
        if method == "watch_results":
            await anext(answer)
        else:
            await answer
    found = [(v.field, v.description) for v in caught.value.violations]
    assert len(dict(found)) == len(found), "each field once"
    return dict(found)


async def started(**fields: Any) -> dict[str, str]:
    return await violations("start_precompute", pb.StartPrecomputeRequest(**fields))


async def game(key: str = "k", **changes: Any) -> dict[str, str]:
    return await started(key=key, bridging=pb.BridgingSpec(**(GAME | changes)))


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("", "must be 1 to 256 bytes, is 0"),
        (LONG, "must be 1 to 256 bytes, is 10000"),
        ("é" * 129, "must be 1 to 256 bytes, is 258"),
        ("a\x00b", CONTROL),
        ("a\nb", CONTROL),
        ("a\u2028b", CONTROL),
        ("a\u200bb", CONTROL),
    ],
)
async def test_a_wrong_key_is_reported(key: str, rule: str) -> None:
    assert await game(key) == {"key": rule}


@pytest.mark.parametrize("key", ["k", "é" * 128, "🎲 game/7:x", "x" * 256])
async def test_any_printable_key_of_256_bytes_is_right(key: str) -> None:
    assert await started(key=key) == {"spec": "must be set: bridging or custom"}


@pytest.mark.parametrize("end", ["anchor", "target"])
@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("", "must be 1 to 64 characters, is 0"),
        (" \u3000 ", "must be 1 to 64 characters, is 0"),
        (LONG, "must be 1 to 64 characters, is 10000"),
        ("sea\x07", CONTROL),
        ("sea\tsick", CONTROL),
        ("🎲🐢", "must have at least one letter, is '🎲🐢'"),
        ("1984", "must have at least one letter, is '1984'"),
    ],
)
async def test_a_wrong_word_is_reported(end: str, word: str, rule: str) -> None:
    assert await game(**{end: word}) == {f"bridging.{end}": rule}


@pytest.mark.parametrize("target", ["ocean", "OCEAN", "  Ocean "])
async def test_words_that_are_equal_once_normalised_are_reported(target: str) -> None:
    assert await game(target=target) == {
        "bridging.target": "must differ from anchor, both are 'ocean'"
    }


@pytest.mark.parametrize("count", [0, -1, 51, 1000])
async def test_a_wrong_clue_count_is_reported(count: int) -> None:
    assert await game(clue_count=count) == {"bridging.clue_count": f"must be 1 to 50, is {count}"}


@pytest.mark.parametrize("count", [0, -1, 10_001])
async def test_a_wrong_null_sample_count_is_reported(count: int) -> None:
    assert await game(null_sample_count=count) == {
        "bridging.null_sample_count": f"must be 1 to 10000, is {count}"
    }


@pytest.mark.parametrize("number", [0, 7])
async def test_an_unset_or_unknown_recipient_is_reported(number: int) -> None:
    assert await game(recipient_type=number) == {
        "bridging.recipient_type": "must be human or haiku"
    }


async def test_a_missing_spec_is_reported() -> None:
    assert await started(key="k") == {"spec": "must be set: bridging or custom"}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "must be one of: bridging, test; is ''"),
        ("nope", "must be one of: bridging, test; is 'nope'"),
        ("Briding", "did you mean 'bridging'? must be one of: bridging, test; is 'Briding'"),
        (LONG, f"must be one of: bridging, test; is '{LONG[:40]}…'"),
    ],
)
async def test_an_unknown_pipeline_is_reported_with_the_known_ones(name: str, rule: str) -> None:
    assert await started(key="k", custom=pb.CustomSpec(pipeline=name)) == {"custom.pipeline": rule}


async def test_a_custom_pipelines_inputs_are_reported_under_their_path() -> None:
    spec = pb.CustomSpec(pipeline="bridging")
    spec.inputs.update({"anchor": "sea", "target": 5, "colour": "red", "clue_cuont": 3})
    assert await started(key="k", custom=spec) == {
        "custom.inputs.target": "must be text, is 5.0",
        "custom.inputs.recipient_type": "must be human or haiku",
        "custom.inputs.colour": "is not an input of this pipeline",
        "custom.inputs.clue_cuont": "is not an input of this pipeline; did you mean 'clue_count'?",
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_inputs_that_json_cannot_say_are_the_callers_mistake(number: float) -> None:
    spec = pb.CustomSpec(pipeline="test")
    spec.inputs.fields["x"].number_value = number
    assert set(await started(key="k", custom=spec)) == {"custom.inputs"}


@pytest.mark.parametrize("seconds", [0, -1, 7 * 86400 + 1])
async def test_a_ttl_out_of_range_is_reported(seconds: int) -> None:
    spec = pb.BridgingSpec(**GAME)
    found = await started(key="k", bridging=spec, ttl=Duration(seconds=seconds))
    assert set(found) == {"ttl"}
    assert found["ttl"].startswith("must be 0.001 to 604800 seconds, is ")


@pytest.mark.parametrize("namespace", ["A", "a b", "a:b", "x" * 65, "é", "a\n"])
async def test_a_wrong_namespace_is_told_by_every_method(namespace: str) -> None:
    named = {"namespace": namespace}
    keyed = named | {"key": "k"}
    requests: dict[str, Any] = {
        "start_precompute": pb.StartPrecomputeRequest(**keyed, bridging=pb.BridgingSpec(**GAME)),
        "get_results": pb.GetResultsRequest(**keyed),
        "watch_results": pb.WatchResultsRequest(**keyed),
        "batch_get_results": pb.BatchGetResultsRequest(**named, keys=["k"]),
        "get_status": pb.GetStatusRequest(**keyed),
        "cancel_precompute": pb.CancelPrecomputeRequest(**keyed),
        "delete_precompute": pb.DeletePrecomputeRequest(**keyed),
        "touch_precompute": pb.TouchPrecomputeRequest(**keyed),
        "create_run_token": pb.CreateRunTokenRequest(**keyed),
        "report_step": pb.ReportStepRequest(
            **keyed, revision=1, step="a", artifact=pb.Artifact(data=b"x")
        ),
        "list_precomputes": pb.ListPrecomputesRequest(**named),
        "get_stats": pb.GetStatsRequest(**named),
    }
    for method, request in requests.items():
        assert set(await violations(method, request)) == {"namespace"}, method


async def test_everything_wrong_with_a_start_is_reported_at_once() -> None:
    found = await started(
        namespace="NO",
        key="",
        ttl=Duration(seconds=-5),
        bridging=pb.BridgingSpec(anchor="", target="🎲", clue_count=0, null_sample_count=0),
    )
    assert set(found) == {
        "namespace",
        "key",
        "ttl",
        "bridging.anchor",
        "bridging.target",
        "bridging.recipient_type",
        "bridging.clue_count",
        "bridging.null_sample_count",
    }


@pytest.mark.parametrize("seconds", [-1, 601])
async def test_everything_wrong_with_a_read_is_reported_at_once(seconds: int) -> None:
    request = pb.GetResultsRequest(key="\x01", wait=Duration(seconds=seconds))
    assert await violations("get_results", request) == {
        "key": CONTROL,
        "wait": f"must be 0 to 600 seconds, is {seconds}",
    }


@pytest.mark.parametrize(
    "token",
    [
        "!!",
        "é",
        "abc",
        base64.urlsafe_b64encode(b"no colon").decode(),
        base64.urlsafe_b64encode(b"default:key").decode(),
        base64.urlsafe_b64encode(b"1:default:").decode(),
        base64.urlsafe_b64encode(b"1:NO:key").decode(),
        base64.urlsafe_b64encode(b"1:default:\xff\xfe").decode(),
    ],
)
async def test_a_page_token_of_another_origin_is_reported(token: str) -> None:
    request = pb.ListPrecomputesRequest(page_token=token)
    assert await violations("list_precomputes", request) == {
        "page_token": "is not a next_page_token of this method"
    }


async def test_everything_wrong_with_a_list_is_reported_at_once() -> None:
    request = pb.ListPrecomputesRequest(
        namespace="NO", page_size=1001, page_token="?", statuses=[1, 0, 9]
    )
    assert await violations("list_precomputes", request) == {
        "namespace": "must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-'",
        "page_size": "must be 1 to 1000, or 0 for the default, is 1001",
        "page_token": "is not a next_page_token of this method",
        "statuses[1]": "is no status: 0",
        "statuses[2]": "is no status: 9",
    }


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("list_precomputes", pb.ListPrecomputesRequest(statuses=[3] * 1001), "statuses"),
        (
            "get_results",
            pb.GetResultsRequest(key="k", required_steps=["one"] * 1001),
            "required_steps",
        ),
    ],
)
async def test_a_list_that_would_take_long_to_read_is_refused_unread(method, request_, field):
    with pytest.raises(InvalidRequest) as caught:
        await getattr(methods_of(), method)(request_, Call())
    assert [(v.field, v.description) for v in caught.value.violations] == [
        (field, "must be at most 1000, are 1001")
    ]
