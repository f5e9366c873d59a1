"""Many runs in one call, and parts of answers."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headstart._messages.result_parts import Changes, only_results
from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.deadline import Deadline
from headstart_service.api.dependencies import Call
from headstart_service.api.methods.batch_get_results import BatchGetResults
from headstart_service.api.results.answer import Answer
from headstart_service.api.step_names import StepNames
from headstart_service.auth.grants import Grant, Verb
from headstart_service.domain import Outcome, RunKey, Started, Status
from headstart_service.domain.errors import (
    CapacityExhausted,
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
)
from headstart_service.domain.log_fields import FIELDS
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until
from tests.unit.api.conftest import (
    COMPLETED,
    KEY,
    Api,
    FakeReader,
    Methods,
    dependencies_of,
    methods_of,
)

NOW = Call()


def start(key: str, namespace: str = "", **custom: Any) -> pb.StartPrecomputeRequest:
    spec = pb.CustomSpec(**{"pipeline": "test", **custom})
    return pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec)


def code(result: Any) -> int:
    """The code of a batch's item; 0 for a response."""
    return result.error.code if result.WhichOneof("result") == "error" else 0


def fields(error: pb.Error) -> list[str]:
    """The fields of an error's violations; it is read as google.rpc.Status."""
    status = status_pb2.Status.FromString(error.SerializeToString())
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    return [violation.field for violation in bad.field_violations]


# Starts


async def test_each_start_of_a_batch_has_its_own_result_in_its_place() -> None:
    store = FakeRunStore()
    store.fails[RunKey("default", "full")] = CapacityExhausted("full", 2.0)
    requests = [start("a"), start(""), start("full"), start("b", pipeline="x"), start("c")]
    response = await methods_of(store=store).batch_start_precomputes(
        pb.BatchStartPrecomputesRequest(requests=requests), NOW
    )
    assert [code(each) for each in response.results] == [
        *(0, code_pb2.INVALID_ARGUMENT, code_pb2.RESOURCE_EXHAUSTED, code_pb2.INVALID_ARGUMENT, 0)
    ]
    assert response.results[4].response.key == "c"
    assert fields(response.results[1].error) == ["key"]
    assert fields(response.results[3].error) == ["custom.pipeline"]


async def test_two_starts_of_a_key_in_one_batch_are_done_in_their_order() -> None:
    order: list[tuple[str, int]] = []

    class Slow(FakeRunStore):
        async def start(self, key: RunKey, plan: Any, ttl: float, **more: Any) -> Started:
            number = len(order)
            order.append((key.key, round(ttl)))
            if not number:
                await asyncio.sleep(0.01)
            order.append((key.key, -round(ttl)))
            return Started(Outcome.STARTED, Status.PENDING, 1)

    requests = [start("a"), start("b"), start("a")]
    for number, request in enumerate(requests, 1):
        request.ttl.seconds = number
    await methods_of(store=Slow()).batch_start_precomputes(
        pb.BatchStartPrecomputesRequest(requests=requests), NOW
    )
    assert [each for each in order if each[0] == "a"] == [("a", 1), ("a", -1), ("a", 3), ("a", -3)]
    assert order.index(("b", 2)) < order.index(("a", -1)), "other keys do not wait"


async def test_a_start_in_a_namespace_that_the_token_does_not_cover_is_refused_alone() -> None:
    store = FakeRunStore()
    grant = Grant("shop", frozenset({"shop"}), frozenset({Verb.WRITE}))
    requests = [start("a", "shop"), start("b", "other"), start("c")]
    response = await methods_of(store=store).batch_start_precomputes(
        pb.BatchStartPrecomputesRequest(requests=requests), Call(None, grant)
    )
    denied = code_pb2.PERMISSION_DENIED
    assert [code(each) for each in response.results] == [0, denied, denied]
    assert [key.key for key, *_ in store.asked("start")] == ["a"]


async def test_a_batch_is_one_line_and_one_for_each_kind_of_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    store = FakeRunStore()
    for key in ("full", "full too"):
        store.fails[RunKey("shop", key)] = CapacityExhausted("full", 2.0)
    grant = Grant("web", frozenset({"shop"}), frozenset({Verb.WRITE}))
    starts = [start(key, "shop") for key in ("a", "full", "b", "full too")]
    requests = [*starts, *(start(key, "other") for key in ("c", "d", "e"))]
    await methods_of(store=store).batch_start_precomputes(
        pb.BatchStartPrecomputesRequest(requests=requests), Call(None, grant)
    )
    lines = [record.__dict__[FIELDS] for record in caplog.records]
    assert [line["event"] for line in lines] == ["batch.started", "call.refused", "call.refused"]
    assert lines[0]["outcomes"] == {"started": 2, "refused": 5}
    told = {line["outcome"]: (line["token"], line["key"]) for line in lines[1:]}
    assert told == {"RESOURCE_EXHAUSTED": ("web", "full"), "PERMISSION_DENIED": ("web", "c")}


@pytest.mark.parametrize("number", [0, 1001])
async def test_a_batch_has_one_to_a_thousand_items(number: int) -> None:
    methods = methods_of(store=FakeRunStore())
    starts = pb.BatchStartPrecomputesRequest(requests=[start("a")] * number)
    reads = pb.BatchGetResultsRequest(keys=["a"] * number)
    watch = pb.WatchResultsRequest(keys=["a"] * number)
    calls = [
        lambda: methods.batch_start_precomputes(starts, NOW),
        lambda: methods.batch_get_results(reads, NOW),
        lambda: anext(methods.watch_results(watch, NOW)),
    ]
    for call in calls if number else calls[:2]:
        with pytest.raises(InvalidRequest) as caught:
            await call()
        [violation] = caught.value.violations
        assert violation.field in {"requests", "keys"}
        assert violation.description == f"must be 1 to 1000, are {number}"


# Reads


class Unready(FakeReader):
    """Keeps nothing in memory."""

    def ready(self, _: RunKey) -> None: ...


async def batch(api: Api, *keys: str, wait: float = 0.0, **more: Any) -> Any:
    request = pb.BatchGetResultsRequest(keys=keys, **more)
    request.wait.FromNanoseconds(round(wait * 1e9))
    parts = await methods_of(api.reader, api.store).batch_get_results(request, NOW)
    return pb.BatchGetResultsResponse.FromString(bytes(parts)).results


async def test_each_key_of_a_batch_has_its_own_result_in_its_place(api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    api.store.fails[RunKey("default", "gone")] = RunNotFound("default", "gone")
    api.store.fails[RunKey("default", "away")] = StoreUnavailable("away")
    for _ in range(2):  # the second time some come from the near-cache
        found = await batch(api, "a", "gone", "b", "away", "a")
        missing, away = code_pb2.NOT_FOUND, code_pb2.UNAVAILABLE
        assert [code(each) for each in found] == [0, missing, 0, away, 0]
        assert found[0].response.steps["one"].state == pb.STEP_STATE_COMPLETED


async def test_a_batch_waits_until_all_its_runs_have_settled(api: Api) -> None:
    waiting = asyncio.create_task(batch(api, KEY.key, "other", wait=20))
    await api.parked(2)
    api.store.end("one", "two", "three")
    api.wire.say("ended", key=RunKey("default", "other"))
    async with asyncio.timeout(5):
        found = await waiting
    assert [each.response.status for each in found] == [pb.PRECOMPUTE_STATUS_COMPLETED] * 2


async def test_a_batch_is_answered_when_enough_of_its_runs_have_settled(api: Api) -> None:
    waiting = asyncio.create_task(batch(api, "slow", KEY.key, "other", wait=20, min_ready=2))
    await api.parked(3)
    api.store.now(one=COMPLETED)
    api.store.fails[RunKey("default", "other")] = RunNotFound("default", "other")
    api.wire.say("dropped", key=RunKey("default", "other"))
    await wait_until(lambda: api.waiting.waiters == 2)
    api.store.end("two", "three")  # of KEY alone
    async with asyncio.timeout(5):
        slow, ended, missing = await waiting
    assert (code(slow), code(ended), code(missing)) == (0, 0, code_pb2.NOT_FOUND)
    assert slow.response.steps["one"].state == pb.STEP_STATE_COMPLETED, "as it is now"
    assert api.waiting.waiters == 0


async def test_a_batch_that_has_enough_already_does_not_wait(api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    await batch(api, KEY.key)
    api.store.now(Status.IN_PROGRESS)
    async with asyncio.timeout(5):
        found = await batch(api, KEY.key, "slow", wait=20, min_ready=1)
    assert [each.response.status for each in found] == [
        pb.PRECOMPUTE_STATUS_COMPLETED,
        pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    ]


async def test_at_the_end_of_its_wait_a_batch_has_what_exists(api: Api) -> None:
    api.store.now(one=COMPLETED)
    found = await batch(api, KEY.key, "other", wait=0.05, required_steps=["two"])
    assert [each.response.steps["one"].state for each in found] == [pb.STEP_STATE_COMPLETED] * 2


async def test_the_mistakes_of_a_batch_are_named_by_its_fields(api: Api) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await batch(api, "a", "", "b" * 300, namespace="A B", min_ready=4, wait=601)
    assert [violation.field for violation in caught.value.violations] == [
        *("namespace", "keys[1]", "keys[2]", "wait", "min_ready")
    ]
    [found] = await batch(api, "a", required_steps=["x"], result_steps=["one", "y"])
    assert fields(found.error) == ["required_steps[0]", "result_steps[1]"]


async def test_the_same_mistake_in_a_thousand_keys_is_worked_out_once(api: Api) -> None:
    names = [f"ones{number}" for number in range(1000)]
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    keys = ["k"] * 1000
    began = time.process_time()
    found = await batch(api, *keys, required_steps=names, result_steps=names)
    await watched(api, keys=keys, result_steps=names)
    # One for each key would hold up all other calls for five seconds.
    assert time.process_time() - began < 1.5
    assert {code(each) for each in found} == {code_pb2.INVALID_ARGUMENT}
    details = found[-1].error.details[0].value
    shown = error_details_pb2.BadRequest.FromString(details).field_violations
    assert shown[0].field == "required_steps[0]"
    assert "did you mean 'one'" in shown[0].description
    assert sum(bool(each.field) for each in shown) + int(shown[-1].description.split()[1]) == 2000


def test_a_repeated_name_of_a_step_is_looked_up_once_and_wrong_in_each_place() -> None:
    names = StepNames(["one", "x", "one", "x"])
    assert names == ("one", "x")
    for known in (["one"], ["x", "one"]):
        found = [each.field for each in names.unknown("steps", known)]
        assert found == ([] if "x" in known else ["steps[1]", "steps[3]"])


async def test_a_batch_leaves_time_for_each_of_its_keys() -> None:
    for number, wait in ((1, 9.75), (1000, 9.75 - 999 * 0.0003)):
        reader = Unready()
        request = pb.BatchGetResultsRequest(keys=map(str, range(number)), wait={"seconds": 60})
        await methods_of(reader).batch_get_results(request, Call(10.0))
        assert reader.waits == [pytest.approx(wait)] * number
    assert Deadline.of_call(60, 0.1, 1000).wait > 0, "short deadlines are shared"


async def test_keys_that_are_not_read_before_the_deadline_have_an_error() -> None:
    class Slow(Unready):
        async def get(self, key: RunKey, *more: Any, **by_name: Any) -> Answer:
            if key.key != "fast":
                await asyncio.sleep(60)
            return await super().get(key, *more, **by_name)

    for request in (
        pb.BatchGetResultsRequest(keys=["slow", "fast"]),
        pb.BatchGetResultsRequest(keys=["slow", "fast"], min_ready=1),
    ):
        async with asyncio.timeout(5):
            parts = await methods_of(Slow()).batch_get_results(request, Call(0.2))
        slow, fast = pb.BatchGetResultsResponse.FromString(bytes(parts)).results
        assert (code(slow), code(fast)) == (code_pb2.DEADLINE_EXCEEDED, 0)


async def test_a_response_holds_no_more_than_clients_receive(api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    [one] = await batch(api, "a")
    size = len(one.response.SerializeToString())
    for most, fit in ((3 * size, 3), (3 * size - 1, 2), (1, 1)):
        handler = BatchGetResults(dependencies_of(api.reader, api.store), most)
        for _ in range(2):  # the second time all come from the near-cache
            request = pb.BatchGetResultsRequest(keys=["a", "b", "c", "a", "d"])
            parts = await handler.handle(request, NOW)
            found = pb.BatchGetResultsResponse.FromString(bytes(parts)).results
            full = [each.error for each in found if code(each)]
            assert len(found) - len(full) == fit
            # Without a delay: the same call would be answered in the same way.
            assert {(each.code, len(each.details)) for each in full} <= {
                (code_pb2.RESOURCE_EXHAUSTED, 0)
            }
            assert all("in another call" in each.message for each in full)


# Parts


def results(**artifacts: bytes) -> pb.GetResultsResponse:
    message = pb.GetResultsResponse(revision=1)
    for name, data in artifacts.items():
        message.custom.artifacts[name].data = data
        message.steps[name].state = pb.STEP_STATE_COMPLETED
    return message


def test_results_of_other_steps_are_left_out_and_their_reports_are_not() -> None:
    whole = results(a=b"1", b=b"2")
    part = pb.GetResultsResponse.FromString(only_results(whole.SerializeToString(), ["b", "c"]))
    assert set(part.custom.artifacts) == {"b"}
    assert part.steps == whole.steps
    none = pb.GetResultsResponse.FromString(only_results(whole.SerializeToString(), ["c"]))
    assert none.WhichOneof("results") is None
    game = pb.GetResultsResponse()
    game.bridging.MergeFrom(
        pb.BridgingResults(anchor_embedding=[1], embedding_model="m", null_samples=[0.5])
    )
    part = pb.GetResultsResponse.FromString(
        only_results(game.SerializeToString(), ["null_samples"])
    )
    assert part.bridging == pb.BridgingResults(null_samples=[0.5])


def test_merged_changes_are_the_whole_answer() -> None:
    first = results(a=b"1")
    first.steps["b"].state = pb.STEP_STATE_RUNNING
    second = results(a=b"1", b=b"2")
    second.status = pb.PRECOMPUTE_STATUS_COMPLETED
    changes = Changes(())
    merged = pb.GetResultsResponse()
    for whole, artifacts in ((first, {"a"}), (second, {"b"})):
        part = pb.GetResultsResponse.FromString(changes.since(whole.SerializeToString()))
        assert set(part.custom.artifacts) == artifacts
        merged.MergeFrom(part)
        assert merged == whole
    again = pb.GetResultsResponse.FromString(changes.since(second.SerializeToString()))
    assert (len(again.steps), again.WhichOneof("results")) == (0, None)
    second.revision = 2
    whole = pb.GetResultsResponse.FromString(changes.since(second.SerializeToString()))
    assert whole == second, "the first of a revision"


async def watched(api: Api, *changes: Any, **request: Any) -> list[pb.WatchResultsResponse]:
    """All messages of a watch; after each but the last, a change is made."""
    found = []
    steps = iter(changes)
    handle = methods_of(api.reader, api.store).watch_results
    async with asyncio.timeout(10):
        async for message in handle(pb.WatchResultsRequest(**request), NOW):
            found.append(pb.WatchResultsResponse.FromString(message.data))
            if change := next(steps, None):
                await api.parked(1)
                change()
    return found


async def test_a_watch_of_changes_sends_each_step_once(api: Api) -> None:
    found = await watched(
        api,
        lambda: api.store.end("one"),
        lambda: api.store.end("two", "three"),
        key=KEY.key,
        changes_only=True,
    )
    sent = [sorted(each.results.steps) for each in found]
    assert sent == [["one", "three", "two"], ["one"], ["three", "two"]]
    assert found[-1].results.status == pb.PRECOMPUTE_STATUS_COMPLETED


async def test_many_keys_are_watched_on_one_stream_until_each_has_ended(api: Api) -> None:
    gone = RunKey("default", "gone")
    api.store.fails[gone] = RunNotFound("default", "gone")
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    found = await watched(api, keys=["a", "gone", "b"])
    [missing] = [each for each in found if each.HasField("error")]
    assert (missing.key, missing.error.code) == ("gone", code_pb2.NOT_FOUND)
    assert len(found) == 3
    assert api.waiting.waiters == 0


async def test_a_watch_of_many_that_is_left_leaves_no_waiter(api: Api) -> None:
    handle = methods_of(api.reader, api.store).watch_results
    messages = handle(pb.WatchResultsRequest(keys=["a", "b", "c"]), NOW)
    for _ in range(3):
        await anext(messages)
    await api.parked(3)
    await messages.aclose()
    assert api.waiting.waiters == 0


@pytest.mark.parametrize("request_of", [{"key": KEY.key}, {"keys": ["a", "b"]}])
async def test_a_watch_ends_at_its_age_and_leaves_no_waiter(
    api: Api, request_of: dict[str, Any]
) -> None:
    known = dependencies_of(api.reader, api.store)
    aged = replace(known, rules=replace(known.rules, max_connection_age=0.05))
    handle = Methods(aged).watch_results
    async with asyncio.timeout(10):
        found = [message async for message in handle(pb.WatchResultsRequest(**request_of), NOW)]
    assert found, "what exists comes first"
    assert api.waiting.waiters == 0


@pytest.mark.parametrize(
    "request_of",
    [{"key": "k", "keys": ["a"]}, {"key": "k", "result_steps": ["one", "y"]}, {"keys": ["\0"]}],
)
async def test_the_mistakes_of_a_watch_are_named(api: Api, request_of: dict[str, Any]) -> None:
    handle = methods_of(api.reader, api.store).watch_results
    with pytest.raises(InvalidRequest) as caught:
        await anext(handle(pb.WatchResultsRequest(**request_of), NOW))
    [violation] = caught.value.violations
    assert violation.field in {"key", "result_steps[1]", "keys[0]"}
