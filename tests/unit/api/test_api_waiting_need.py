"""Who waits needs it now: the store is told so, and what cannot come any more is not waited for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from google.protobuf.duration_pb2 import Duration

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.dependencies import Call
from headstart_service.domain import ALL_STEPS, Status, StepState
from headstart_service.domain.errors import InvalidRequest
from tests.support.run_store import FakeRunStore
from tests.unit.api.conftest import KEY, Api, methods_of


@pytest.mark.parametrize("state", [StepState.FAILED, StepState.SKIPPED])
async def test_a_required_step_that_will_give_nothing_ends_the_wait_for_it(
    api: Api, state: StepState
) -> None:
    waiter = api.get("one")
    patient = api.get("two")
    await api.parked(2)
    api.store.now(one=state)
    api.wire.say("step", "one")
    async with asyncio.timeout(5):
        answer = pb.GetResultsResponse.FromString(await waiter)
    assert answer.status == pb.PRECOMPUTE_STATUS_IN_PROGRESS
    assert not patient.done()
    api.store.end("two", "three")
    await patient


async def test_a_caller_that_waits_and_no_other_promotes_the_run(api: Api) -> None:
    await api.get("one", wait=0)
    assert not api.store.waited_for
    waiter = api.get("one")
    await api.parked()
    assert api.store.waited_for, "whatever step it waits for, the whole run is promoted"
    api.store.end("one")
    await waiter


async def test_who_watches_waits(api: Api) -> None:
    async with aclosing(api.reader.watch(KEY)) as watched:
        await anext(watched)
    assert api.store.waited_for


async def test_a_run_that_is_started_anew_while_somebody_waits_is_promoted_too(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.store.calls.clear()
    api.store.now(Status.PENDING, revision=2)
    api.wire.say("started", run="run-2")
    await api.parked()
    assert api.store.waited_for
    api.store.end("one", "two", "three")
    await waiter


def start_of(**durations: float) -> pb.StartPrecomputeRequest:
    request = pb.StartPrecomputeRequest(key="k", custom=pb.CustomSpec(pipeline="test"))
    for field, seconds in durations.items():
        getattr(request, field).CopyFrom(Duration(nanos=0))
        getattr(request, field).FromNanoseconds(round(seconds * 1e9))
    return request


@pytest.mark.parametrize("seconds", [-0.001, 7 * 86400 + 0.001])
async def test_a_need_out_of_its_range_is_reported(seconds: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await methods_of().start_precompute(start_of(expected_need_in=seconds), Call())
    [violation] = [v for v in caught.value.violations if v.field == "expected_need_in"]
    assert violation.description.startswith("must be 0 to 604800 seconds")


async def test_results_live_from_when_they_are_needed_unless_the_start_says(
    api: Api,
) -> None:
    store = FakeRunStore()
    servicer = methods_of(store=store)
    default = 1800.0
    for durations in ({}, {"expected_need_in": 90.0}, {"expected_need_in": 0.0}):
        await servicer.start_precompute(start_of(**durations), Call())
    await servicer.start_precompute(start_of(expected_need_in=90.0, ttl=5.0), Call())
    told = [(ttl, more["needed_in"]) for _, _, ttl, more in store.asked("start")]
    assert told == [(default, None), (default + 90, 90), (default, 0), (5, 90)]


async def test_the_store_learns_which_steps_callers_wait_for_and_a_watcher_asks_for_none(
    api: Api,
) -> None:
    async with aclosing(api.reader.watch(KEY)) as watched:
        await anext(watched)
        assert api.store.required == frozenset()
        await api.get("one", wait=0)
        assert api.store.required == frozenset()
        first = api.get("one")
        await api.parked(2)
        assert api.store.required == {"one"}, "though the watcher has all announcements already"
        second = api.get("two")
        await api.parked(3)
        assert api.store.required == {"one", "two"}
        reads = api.store.reads
        third = api.get("two")
        await api.parked(4)
        assert api.store.reads == reads, "the store knows that already"
        last = api.get()
        await api.parked(5)
        assert ALL_STEPS in api.store.required
        api.store.end("one", "two", "three")
        await asyncio.gather(first, second, third, last)
