from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel

from headstart import StepDescription
from headstart._messages import requests
from headstart._messages.convert import pipeline_from
from headstart.v1 import precompute_pb2 as pb
from headstart_service.api import messages, page_token
from headstart_service.api.deadline import Deadline
from headstart_service.api.dependencies import Call
from headstart_service.api.methods import list_precomputes, start_precompute
from headstart_service.domain import (
    Outcome,
    RunKey,
    RunSummary,
    Snapshot,
    Status,
    StepState,
)
from headstart_service.domain.errors import InvalidRequest, Violation
from headstart_service.pipeline.step import VISIBLE_OPTIONS
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.sdk import Pipeline, step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.fragments import report_fragment
from tests.support.any_json import VALUES
from tests.unit.api.conftest import PIPELINE, FakeReader, methods_of


class Empty(BaseModel):
    """No inputs."""


SUMMARY = RunSummary(
    key=RunKey("team", "game-1"),
    pipeline="test",
    revision=3,
    status=Status.FAILED,
    created_us=1_700_000_000_123_456,
    started_us=1_700_000_001_000_000,
    completed_us=0,
    expires_us=1_700_000_002_000_001,
    error="one: no luck",
)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 300_000])
def test_watch_bytes_are_what_protobuf_would_write(size: int) -> None:
    results = pb.GetResultsResponse(error="x" * size) if size else pb.GetResultsResponse()
    written = messages.watch_bytes(results.SerializeToString())
    assert written == pb.WatchResultsResponse(results=results).SerializeToString()


def test_results_bytes_are_the_message_that_one_would_build() -> None:
    codec = ArtifactCodec()
    body = b"".join(
        (
            codec.encode("one", {"x": 1}),
            report_fragment("one", StepState.COMPLETED, elapsed=1.5, attempts=2),
            report_fragment("two", StepState.FAILED, error="no", attempts=1),
        )
    )
    states = {"one": StepState.COMPLETED, "two": StepState.FAILED, "three": StepState.PENDING}
    built = pb.GetResultsResponse(
        namespace="team",
        key="game-1",
        pipeline="test",
        revision=3,
        status=pb.PRECOMPUTE_STATUS_FAILED,
        error="one: no luck",
        steps={
            "one": pb.StepReport(state=pb.STEP_STATE_COMPLETED, attempts=2),
            "two": pb.StepReport(state=pb.STEP_STATE_FAILED, error="no", attempts=1),
            "three": pb.StepReport(state=pb.STEP_STATE_PENDING),
        },
    )
    built.steps["one"].elapsed.FromMilliseconds(1500)
    built.created_at.FromMicroseconds(SUMMARY.created_us)
    built.started_at.FromMicroseconds(SUMMARY.started_us)
    built.expires_at.FromMicroseconds(SUMMARY.expires_us)
    built.custom.artifacts["one"].json = '{"x":1}'
    written = messages.results_bytes(Snapshot(SUMMARY, "run-1", states, body, 10.0), body)
    assert pb.GetResultsResponse.FromString(written) == built


def test_a_time_that_has_not_come_is_absent() -> None:
    message = pb.PrecomputeSummary()
    messages.fill_summary(message, SUMMARY)
    assert message.HasField("created_at")
    assert not message.HasField("completed_at")
    assert message.created_at.ToMicroseconds() == SUMMARY.created_us


def test_a_status_response_has_every_steps_state() -> None:
    states = {"one": StepState.RUNNING, "two": StepState.SKIPPED}
    response = messages.status_response(Snapshot(SUMMARY, "run-1", states, b"", 10.0))
    assert dict(response.steps) == {"one": pb.STEP_STATE_RUNNING, "two": pb.STEP_STATE_SKIPPED}
    assert response.error == "one: no luck"


def test_every_status_and_outcome_has_its_number_and_none_is_unspecified() -> None:
    statuses = [messages.status(status) for status in Status]
    outcomes = [messages.outcome(outcome) for outcome in Outcome]
    assert sorted(statuses) == sorted(set(pb.PrecomputeStatus.values()) - {0})
    assert sorted(outcomes) == sorted(set(pb.StartOutcome.values()) - {0})


def test_a_list_of_no_status_means_all_and_repetitions_count_once() -> None:
    into: list[Violation] = []
    assert list_precomputes.statuses([], into) == list(Status)
    completed, failed = pb.PRECOMPUTE_STATUS_COMPLETED, pb.PRECOMPUTE_STATUS_FAILED
    assert list_precomputes.statuses([completed, failed, completed], into) == [
        Status.COMPLETED,
        Status.FAILED,
    ]
    assert into == []


@pytest.mark.parametrize("key", ["k", "a:b", "🎲", "x" * 256, ";"])
@pytest.mark.parametrize("namespace", ["team.1", "Team:1", "a::", ":"])
def test_a_page_token_finds_its_run_again(namespace: str, key: str) -> None:
    into: list[Violation] = []
    last = RunKey(namespace, key)
    assert page_token.from_page_token(page_token.page_token(last, 3), 3, into) == last
    assert page_token.from_page_token("", 3, into) is None
    assert into == []
    page_token.from_page_token(page_token.page_token(last, 3), 6, into)
    rule = "is of a store with 3 partitions, now it has 6: list anew"
    assert into == [Violation("page_token", rule)]


def test_a_bridging_game_leaves_defaults_to_its_pipeline() -> None:
    spec = pb.BridgingSpec(anchor="a", target="b", recipient_type=pb.RECIPIENT_TYPE_HAIKU)
    assert start_precompute.bridging_inputs(spec) == {
        "anchor": "a",
        "target": "b",
        "recipient_type": "haiku",
    }
    spec.clue_count = 0
    assert start_precompute.bridging_inputs(spec)["clue_count"] == 0, "an explicit zero is reported"


def test_both_ways_to_start_a_game_give_one_plan() -> None:
    spec = pb.BridgingSpec(
        anchor="Ocean", target="forest", recipient_type=pb.RECIPIENT_TYPE_HUMAN, clue_count=7
    )
    custom = pb.CustomSpec(pipeline="bridging")
    custom.inputs.update(
        {"anchor": "ocean ", "target": "forest", "recipient_type": "human", "clue_count": 7}
    )
    assert BRIDGING.plan(start_precompute.bridging_inputs(spec), "") == BRIDGING.plan(
        start_precompute.custom_inputs(custom), ""
    )


def test_a_pipeline_is_described_with_its_needs_and_its_inputs_schema() -> None:
    description = messages.pipeline_description(BRIDGING)
    steps = {step.name: step for step in description.steps}
    assert steps["embed_endpoints"].required
    assert list(steps["haiku_embeddings"].needs) == ["haiku_bridge"]
    assert steps["haiku_bridge"].timeout.ToTimedelta().total_seconds() == 45
    assert "anchor" in description.input_schema["properties"]
    assert {(step.version, step.memo) for step in description.steps} == {("", False)}
    assert [step.name for step in messages.pipeline_description(PIPELINE).steps] == [
        "one",
        "two",
        "three",
    ]


def test_every_visible_option_of_a_step_reaches_callers() -> None:
    """An option in one of the three declarations must be in all of them."""
    derived = {"name", "needs", "optional_needs", "output_type", "output_schema"}
    described = {field.name for field in pb.StepDescription.DESCRIPTOR.fields}
    assert described - derived == set(VISIBLE_OPTIONS)
    assert described == {field.name for field in fields(StepDescription)}

    @step(
        required=True,
        timeout=2,
        max_attempts=3,
        runs_on="thread",
        version="2",
        memo=True,
        pool="gpu",
    )
    def seen() -> int: ...

    pipeline = Pipeline(name="p", version="1", description="", inputs=Empty, steps=(seen,))
    [shown] = pipeline_from(messages.pipeline_description(pipeline)).steps
    assert shown == StepDescription(
        name="seen",
        needs=(),
        output_type="int",
        output_schema={"type": "integer"},
        required=True,
        timeout=timedelta(seconds=2),
        max_attempts=3,
        runs_on="thread",
        version="2",
        memo=True,
        pool="gpu",
    )


@pytest.mark.parametrize(
    ("left", "margin"),
    [(0.0, 0.02), (0.1, 0.02), (0.2, 0.02), (1.0, 0.1), (2.5, 0.25), (60.0, 0.25)],
)
def test_the_margin_is_a_tenth_of_the_deadline_within_bounds(left: float, margin: float) -> None:
    assert left - Deadline.of_call(1000.0, left).wait == pytest.approx(margin)


@pytest.mark.parametrize(
    ("wait", "left", "expected"),
    [
        (0.0, None, 0.0),
        (5.0, None, 5.0),
        (5.0, 1.0, 0.9),
        (0.5, 1.0, 0.5),
        (5.0, 10.0, 5.0),
        (0.0, 1.0, 0.0),
        (600.0, 601.0, 600.0),
        (600.0, 600.0, 599.75),
    ],
)
async def test_a_wait_ends_before_the_deadline_less_the_margin(
    wait: float, left: float | None, expected: float
) -> None:
    reader = FakeReader()
    request = pb.GetResultsRequest(key="k")
    request.wait.FromMilliseconds(round(wait * 1000))
    await methods_of(reader).get_results(request, Call(left))  # type: ignore[arg-type]
    assert reader.waits == [pytest.approx(expected)]


async def test_a_deadline_that_is_almost_over_means_no_wait() -> None:
    reader = FakeReader()
    request = pb.GetResultsRequest(key="k")
    request.wait.FromSeconds(5)
    await methods_of(reader).get_results(request, Call(0.01))  # type: ignore[arg-type]
    assert reader.waits[0] <= 0


def refused(custom: pb.CustomSpec) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        start_precompute.custom_inputs(custom)
    return [(each.field, each.description) for each in caught.value.violations]


def test_inputs_larger_than_a_mebibyte_are_refused_by_their_fields_name() -> None:
    limit = 1 << 20
    custom = pb.CustomSpec(pipeline="test")
    custom.inputs.update({"text": "x" * (limit - 100)})
    assert start_precompute.custom_inputs(custom)
    custom.inputs.update({"text": "x" * limit})
    [(field, rule)] = refused(custom)
    assert (field, rule.split(",")[0]) == ("custom.inputs", "must be at most 1048576 bytes")

    text = json.dumps({"a": "é" * ((limit - 9) // 2)}, ensure_ascii=False)
    assert start_precompute.custom_inputs(pb.CustomSpec(inputs_json=text))
    assert refused(pb.CustomSpec(inputs_json=text + "  ")) == [
        ("custom.inputs_json", "must be at most 1048576 bytes, is 1048577")
    ]


class Anything(BaseModel):
    value: Any


@step()
async def one(value: Any) -> Any:
    return value


ANYTHING = Pipeline("anything", "1", "Takes any JSON", Anything, (one,))


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_json_is_exact_from_the_client_to_the_worker(value: Any) -> None:
    """`repr` tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    request = requests.start(
        "", "k", "anything", {"value": value}, ttl=None, restart=False, expected_need_in=None
    )
    given = start_precompute.custom_inputs(request.custom)
    assert repr(given) == repr({"value": value})
    kept = ANYTHING.plan(given, "").inputs
    assert repr(Anything.model_validate_json(kept).value) == repr(value)


def test_neighbours_beyond_doubles_are_two_plans_and_two_memos() -> None:
    plans = [
        ANYTHING.plan(
            start_precompute.custom_inputs(pb.CustomSpec(inputs_json=f'{{"value":[{id}]}}')), ""
        )
        for id in (2**53, 2**53 + 1)  # noqa: A001
    ]
    assert plans[0].digest != plans[1].digest
    assert plans[0].steps != plans[1].steps
    values = [Anything.model_validate_json(plan.inputs) for plan in plans]
    memos = {ANYTHING.memo_digest(ANYTHING.by_name["one"], each, "", "", {}) for each in values}
    assert len(memos) == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (" ", "must be JSON: Expecting value: line 1 column 2 (char 1)"),
        ("[1]", "must be a JSON object, is '[1]'"),
        ("null", "must be a JSON object, is 'null'"),
        ("{", "must be JSON: Expecting property name"),
        ("{'a': 1}", "must be JSON: Expecting property name"),
        ('{"a": 01}', "must be JSON: Expecting ',' delimiter"),
        ('{"a": +1}', "must be JSON: Expecting value"),
        ('{"a": "\t"}', "must be JSON: Invalid control character"),
        ("{} {}", "must be JSON: Extra data"),
        ("\ufeff{}", "must be JSON: Expecting value"),
        ('{"a": NaN}', "must not hold NaN: JSON has no such number"),
        ('{"a": -Infinity}', "must not hold -Infinity: JSON has no such number"),
        ('{"a": 1e400}', "numbers must be within a double's range, one is '1e400'"),
        ('{"a": -%s.5}' % ("9" * 400), "numbers must be within a double's range, one is '-9"),
        ('{"a": -%s}' % ("9" * 641), "integers must have at most 640 digits, one is '-9"),
        ('{"a": %s}' % ("9" * 100_000), "integers must have at most 640 digits, one is '9"),
        (
            '{"a": {"b\\n": 1, "c": 2, "b\\u000a": 1}}',
            r"must have each name once in an object, has 'b\n' twice",
        ),
        (r'{"a": ["\ud800"]}', r"must be Unicode text, has a lone surrogate: '\ud800'"),
        (r'{"\udfff": 1}', r"must be Unicode text, has a lone surrogate: '\udfff'"),
        ('{"a": ' + "[" * 100 + "1" + "]" * 100 + "}", "must nest at most 100 objects and arrays"),
        (
            '{"a": %s}' % ('{"b":' * 100 + "1" + "}" * 100),
            "must nest at most 100 objects and arrays",
        ),
        ('{"a": ' + "[" * 500_000, "must nest at most 100 objects and arrays"),
    ],
)
def test_text_that_is_no_exact_object_is_refused_by_its_name(text: str, rule: str) -> None:
    [(field, told)] = refused(pb.CustomSpec(inputs_json=text))
    assert field == "custom.inputs_json"
    assert told.startswith(rule)
    assert len(told) < 200


def test_the_deepest_inputs_are_planned_and_read_again() -> None:
    deepest = '{"value":' + "[" * 99 + "]" * 99 + "}"
    plan = ANYTHING.plan(start_precompute.custom_inputs(pb.CustomSpec(inputs_json=deepest)), "")
    assert Anything.model_validate_json(plan.inputs)


def test_a_pair_of_surrogates_is_one_character() -> None:
    text = r'{"value": "\ud83c\udf0a"}'
    assert start_precompute.custom_inputs(pb.CustomSpec(inputs_json=text)) == {"value": "🌊"}


def test_both_forms_of_inputs_together_are_refused() -> None:
    custom = pb.CustomSpec(pipeline="test", inputs_json="{}")
    custom.inputs.SetInParent()
    assert [field for field, _ in refused(custom)] == ["custom.inputs_json"]


def test_a_struct_has_no_whole_number_that_doubles_do_not_tell_from_its_neighbour() -> None:
    custom = pb.CustomSpec(pipeline="test")
    good = {"a": 2**53 - 1, "b": [1 - 2**53, 0.5, 4503599627370496.5], "c": "9007199254740993"}
    custom.inputs.update(good)
    assert start_precompute.custom_inputs(custom) == good
    custom.inputs.update({"id": 2**53 + 1, "deep": [{"x": -(2**53)}, 1e300]})
    told = refused(custom)
    assert [field for field, _ in told] == [
        "custom.inputs.deep.0.x",
        "custom.inputs.deep.1",
        "custom.inputs.id",
    ]
    assert all("`inputs_json`" in rule for _, rule in told)
    assert "is 9007199254740992:" in told[-1][1]
