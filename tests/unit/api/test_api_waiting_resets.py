"""Waiting for a run whose store is emptied: which run a caller is given, the old or the new."""

from __future__ import annotations

import asyncio

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.deadline import Deadline
from headstart_service.domain import RunKey, Status, StepState
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, KEY, Api, soon, states


async def after_a_reset(api: Api) -> None:
    """The store loses everything, and another process starts the key with other inputs."""
    api.store.now(run="after", one=COMPLETED)


async def test_after_a_reset_nobody_gets_the_run_before_it_however_revisions_compare(
    api: Api,
) -> None:
    api.store.now(revision=5)
    waiter = api.get()
    await api.parked()
    await after_a_reset(api)
    api.wire.say("started", run="after")
    await api.parked()
    for _ in range(3):
        assert pb.GetResultsResponse.FromString(await soon(api.get("one"))).revision == 1
    assert not waiter.done()
    api.store.now(Status.COMPLETED, run="after", two=COMPLETED, three=COMPLETED)
    api.wire.say("ended", run="after")
    assert pb.GetResultsResponse.FromString(await soon(waiter)).revision == 1


async def test_a_caller_of_the_start_after_a_reset_is_given_that_run_before_it_is_announced(
    api: Api,
) -> None:
    """Its revision is one that the process knows already, of the run before the reset."""
    waiter = api.get("three")
    await api.parked()
    await after_a_reset(api)
    answer = await asyncio.wait_for(api.reader.get(KEY, ("one",), Deadline.of_call(20.0), 1), 5)
    assert states(answer)["one"] == "COMPLETED"
    waiter.cancel()
    await asyncio.wait({waiter})


async def test_what_is_kept_of_an_ended_run_is_not_for_callers_with_a_revision(api: Api) -> None:
    api.store.end("one", "two", "three")
    await soon(api.get())
    api.store.now(run="after", one=StepState.PENDING)
    answer = await asyncio.wait_for(api.reader.get(KEY, (), Deadline.of_call(0.0), 1), 5)
    assert states(answer)["one"] == "PENDING"


async def test_a_first_read_that_saw_the_run_before_a_reset_is_repeated(api: Api) -> None:
    api.store.now(one=COMPLETED, revision=5)
    api.store.gate.clear()
    waiter = api.get()
    await wait_until(lambda: api.store.reads == 1)
    api.store.now(Status.COMPLETED, run="after", two=COMPLETED, three=COMPLETED)
    api.wire.say("started", run="after")
    await asyncio.sleep(0.01)
    api.store.gate.set()
    assert pb.GetResultsResponse.FromString(await soon(waiter)).revision == 1
    assert api.store.reads == 2


async def test_a_store_that_was_emptied_outdates_every_answer(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    other = RunKey("default", "other")
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    await soon(api.get(key=other))
    assert api.waiting.receiving
    assert len(api.cache) == 1
    api.wire.say("reset", key=RunKey("", ""), run="")
    await soon(waiter)
    await wait_until(lambda: len(api.cache) == 1)
    before = api.store.reads
    await soon(api.get(key=other))
    assert api.store.reads == before + 1
