"""Waiting while the store is away, and watching: what a caller gets, and when."""

from __future__ import annotations

import asyncio

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.deadline import Deadline
from headstart_service.domain import Status, StepState
from headstart_service.domain.errors import RunNotFound
from tests.support.ledger import tasks_left
from tests.support.virtual_time import loop_time
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, KEY, Api


async def test_a_store_that_goes_away_during_a_wait_costs_nothing_but_news(api: Api) -> None:
    api.store.now(one=COMPLETED)
    began = loop_time()
    waiter = api.get(wait=0.5)
    await api.parked()
    api.store.away = True
    api.wire.say("step", "two")
    api.wire.say("ended")
    answer = pb.GetResultsResponse.FromString(await waiter)
    assert answer.steps["one"].state == pb.STEP_STATE_COMPLETED
    assert 0.49 < loop_time() - began < 3


async def test_a_store_that_comes_back_during_a_wait_is_noticed(api: Api) -> None:
    waiter = api.get(wait=20.0)
    await api.parked()
    api.store.away = True
    api.store.end("one", "two", "three")
    await wait_until(lambda: api.store.reads > 2)
    api.store.away = False
    async with asyncio.timeout(5):
        answer = pb.GetResultsResponse.FromString(await waiter)
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED


async def test_waiters_of_a_run_share_their_reads_while_the_store_is_away(api: Api) -> None:
    waiters = [api.get(wait=0.45) for _ in range(50)]
    await api.parked(50)
    api.store.away = True
    before = api.store.reads
    api.wire.say("ended")
    await asyncio.gather(*waiters)
    assert api.store.reads - before < 50, "each would have looked four times"


async def test_the_end_of_a_wait_returns_the_truth_while_no_announcements_arrive(api: Api) -> None:
    api.wire.refusing = True
    api.wire.cut()
    await wait_until(lambda: not api.waiting.receiving)
    waiter = api.get(wait=0.3)
    await api.parked()
    await wait_until(lambda: api.store.reads)
    api.store.now(one=COMPLETED)  # without an announcement
    answer = pb.GetResultsResponse.FromString(await waiter)
    assert answer.steps["one"].state == pb.STEP_STATE_COMPLETED


async def test_a_store_that_hangs_at_the_end_of_a_wait_cannot_cost_the_answer(api: Api) -> None:
    began = loop_time()
    waiter = api.get("one", wait=0.2)
    await api.parked()
    api.store.gate.clear()
    api.wire.say("step", "two")
    assert await waiter
    assert loop_time() - began < 3
    api.store.gate.set()
    await wait_until(lambda: not [t for t in tasks_left() if t.startswith("read")])


@pytest.mark.parametrize("left", [0.05, 0.2, 1.0, 2.5, 10.0, 600.0])
def test_the_last_look_fits_into_the_callers_margin(left: float) -> None:
    deadline = Deadline.of_call(left, left)
    assert deadline.grace <= (left - deadline.wait) / 2


async def test_a_run_that_never_stops_changing_cannot_hold_a_waiter(api: Api) -> None:
    began = loop_time()
    waiter = api.get(wait=0.2)
    await api.parked()

    async def chatter() -> None:
        while not waiter.done():
            api.wire.say("started")
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(waiter, chatter())
    assert loop_time() - began < 3


async def test_a_watch_sends_the_present_and_each_change_once_and_ends(api: Api) -> None:
    seen: list[bytes] = []

    async def watch() -> None:
        async for answer in api.reader.watch(KEY):
            data = answer.data
            seen.append(data)  # each is looked at as it comes

    async def told(number: int) -> None:
        await wait_until(lambda: len(seen) == number)

    watching = asyncio.create_task(watch())
    await told(1)
    api.wire.say("claimed")  # nothing that a caller can see has changed
    await api.parked()
    await wait_until(lambda: api.store.reads == 2)
    assert len(seen) == 1
    api.store.now(one=StepState.RUNNING)
    api.wire.say("step")
    await told(2)
    api.store.end("one")
    await told(3)
    api.store.end("two", "three")
    async with asyncio.timeout(5):
        await watching
    assert len(seen) == 4
    assert len(set(seen)) == 4
    last = pb.GetResultsResponse.FromString(seen[-1])
    assert last.status == pb.PRECOMPUTE_STATUS_COMPLETED
    assert api.waiting.waiters == 0


async def test_a_watch_of_an_ended_run_sends_it_and_ends(api: Api) -> None:
    api.store.end("one", "two", "three")
    told = [answer.data async for answer in api.reader.watch(KEY)]
    assert len(told) == 1


async def test_a_watch_outlasts_an_outage(api: Api) -> None:
    watch = api.reader.watch(KEY)
    await anext(watch)
    following = asyncio.create_task(anext(watch))
    await api.parked()
    api.store.away = True
    api.wire.say("step", "one")
    await wait_until(lambda: api.store.reads >= 3)
    assert not following.done()
    api.store.away = False
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    async with asyncio.timeout(5):
        await following
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_watch_that_is_left_stops_listening(api: Api) -> None:
    watch = api.reader.watch(KEY)
    await anext(watch)
    assert api.waiting.waiters == 1
    await watch.aclose()
    assert api.waiting.waiters == 0


async def test_a_watch_of_an_unknown_run_is_not_found(api: Api) -> None:
    api.store.snapshot = None
    with pytest.raises(RunNotFound):
        await anext(api.reader.watch(KEY))
    assert api.waiting.waiters == 0


async def test_a_cancelled_waiter_stops_listening_and_leaves_no_task(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    waiter.cancel()
    await asyncio.wait({waiter})
    assert api.waiting.waiters == 0
    assert tasks_left() == {"hub", "announcements", "poll"}


async def test_a_watch_ends_when_the_server_stops(api: Api) -> None:
    watch = api.reader.watch(KEY)
    await anext(watch)
    following = asyncio.create_task(anext(watch))
    await api.parked()
    api.waiting.release()
    async with asyncio.timeout(5):
        with pytest.raises(StopAsyncIteration):
            await following
    assert api.waiting.waiters == 0


async def test_watchers_of_a_run_share_one_message(api: Api) -> None:
    watches = [api.reader.watch(KEY) for _ in range(3)]
    for change in ("one", "two"):
        following = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await api.parked(3)
        api.store.end(change)
        messages = {id(message): message for message in [(await f).message() for f in following]}
        [message] = messages.values()
        response = pb.WatchResultsResponse.FromString(message.data)
        assert response.results.key == KEY.key
    for watch in watches:
        await watch.aclose()
