"""Waiting for results: who wakes up when, and how many reads it costs."""

from __future__ import annotations

import asyncio

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.call_observer import CallObservers
from headstart_service.api.deadline import Deadline
from headstart_service.api.results.answer import answer_from
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.run_waiters import RunWaiters
from headstart_service.base.metric_labels import ResultsOutcome
from headstart_service.domain import Awaits, RunKey, Status, StepState
from headstart_service.domain.errors import InvalidRequest, RunNotFound, StoreUnavailable
from headstart_service.pipeline.registry import Registry
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, KEY, PIPELINE, Api, snapshot_of, soon, states

RUNNING = StepState.RUNNING


async def test_what_is_ready_is_answered_at_once_and_read_once(api: Api) -> None:
    api.store.end("one", "two", "three")
    first = await soon(api.get())
    assert set(states(first).values()) == {"COMPLETED"}
    assert await soon(api.get()) is first
    assert api.store.reads == 1, "the second came from the near-cache"


async def test_without_a_wait_the_answer_is_what_exists(api: Api) -> None:
    api.store.now(one=COMPLETED)
    assert states(await soon(api.get(wait=0.0))) == {
        "one": "COMPLETED",
        "two": "PENDING",
        "three": "PENDING",
    }
    assert api.waiting.waiters == 0


async def test_a_waiter_sleeps_until_the_run_has_ended(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    for step in ("one", "two"):
        api.store.end(step)
        await api.parked()
    assert not waiter.done()
    assert api.store.reads == 1, "steps alone cannot end this wait"
    api.store.end("three")
    assert set(states(await soon(waiter)).values()) == {"COMPLETED"}
    assert api.store.reads == 2


async def test_a_waiter_for_some_steps_is_answered_as_soon_as_they_ended(api: Api) -> None:
    waiter = api.get("one", "two")
    await api.parked()
    api.store.end("one")
    api.store.end("three")
    api.wire.say("claimed")
    await api.parked()
    assert not waiter.done()
    # Of these announcements, the only one that could end the wait is still to come.
    assert api.store.reads <= 2
    api.store.now(two=COMPLETED)
    api.wire.say("step", "two")
    await soon(waiter)


async def test_steps_that_have_ended_already_need_no_wait(api: Api) -> None:
    api.store.now(one=COMPLETED)
    await soon(api.get("one"))
    assert api.store.reads == 1


async def test_what_is_announced_between_the_read_and_the_sleep_is_not_lost(api: Api) -> None:
    api.store.gate.clear()
    waiter = api.get()
    await wait_until(lambda: api.store.reads == 1)
    # The read has seen the old state and its answer is under way, when the run ends.
    api.store.end("one", "two", "three")
    await asyncio.sleep(0.01)
    api.store.gate.set()
    assert set(states(await soon(waiter)).values()) == {"COMPLETED"}
    assert api.store.reads == 2


async def test_a_step_that_ends_during_the_first_read_ends_the_wait_for_it(api: Api) -> None:
    api.store.gate.clear()
    waiter = api.get("one")
    await wait_until(lambda: api.store.reads == 1)
    api.store.end("one")  # the answer that is under way was read before
    await wait_until(lambda: api.wire.delivered)
    api.store.gate.set()
    assert states(await soon(waiter))["one"] == "COMPLETED"


def test_an_answer_that_was_read_before_a_later_one_does_not_replace_it() -> None:
    topic = RunWaiters(KEY)
    topic.generation = 2
    later = answer_from(snapshot_of({"one": COMPLETED}))
    topic.settle(later, 2, Awaits.END)
    topic.settle(answer_from(snapshot_of({"one": RUNNING})), 1, Awaits.END)
    assert topic.latest is later


async def test_what_is_dropped_during_a_read_is_not_kept_in_the_near_cache(api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    moment = api.cache.moment
    api.store.gate.clear()
    reading = api.get(wait=0.0)
    await wait_until(lambda: api.store.reads == 1)
    api.wire.say("dropped")
    await wait_until(lambda: api.cache.moment > moment)
    api.store.gate.set()
    await soon(reading)
    assert len(api.cache) == 0
    await soon(api.get(wait=0.0))
    assert len(api.cache) == 1


async def test_what_is_announced_during_a_second_read_is_not_lost(api: Api) -> None:
    waiter = api.get("one", "two")
    await api.parked()
    api.store.gate.clear()
    api.store.now(one=COMPLETED)
    api.wire.say("step", "one", "two")
    await wait_until(lambda: api.store.reads == 2)
    api.store.end("two")
    await asyncio.sleep(0.01)
    api.store.gate.set()
    await soon(waiter)


async def test_waiters_woken_together_share_one_read(api: Api) -> None:
    waiters = [api.get() for _ in range(50)]
    await api.parked(50)
    before = api.store.reads
    api.store.end("one", "two", "three")
    answers = await asyncio.gather(*map(soon, waiters))
    assert api.store.reads == before + 1
    assert len({id(data) for data in answers}) == 1


async def test_a_waiter_does_not_share_a_read_that_began_before_its_news(api: Api) -> None:
    for_one, for_two = api.get("one"), api.get("two")
    await api.parked(2)
    api.store.gate.clear()
    before = api.store.reads
    api.store.end("one")
    await wait_until(lambda: api.store.reads == before + 1)
    await api.parked(2)
    api.store.end("two")
    await api.parked(2)
    assert api.store.reads == before + 1, "a topic has one look under way at a time"
    api.store.gate.set()
    assert states(await soon(for_two))["two"] == "COMPLETED"
    await soon(for_one)
    assert api.store.reads == before + 2


async def test_those_who_come_while_others_wait_are_told_what_they_saw(api: Api) -> None:
    api.store.now(one=COMPLETED)
    first = api.get()
    await api.parked()
    await soon(api.get("one"))
    others = [api.get() for _ in range(20)]
    await api.parked(21)
    assert api.store.reads == 1, "nothing was announced since the first look"
    api.store.end("two", "three")
    await asyncio.gather(*map(soon, [first, *others]))
    assert api.store.reads == 2


async def test_what_this_process_started_is_not_answered_from_an_older_read(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.store.now(revision=2, one=COMPLETED)  # its announcement is still under way
    api.reader.outdate(KEY)
    assert pb.GetResultsResponse.FromString(await soon(api.get("one"))).revision == 2
    assert not waiter.done()
    api.store.end("two", "three")
    await soon(waiter)


async def test_who_knows_of_a_later_revision_is_not_told_what_others_saw(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.store.now(revision=2, one=COMPLETED)
    answer = await asyncio.wait_for(api.reader.get(KEY, ("one",), Deadline.of_call(20.0), 2), 5)
    assert answer.revision == 2
    with pytest.raises(RunNotFound, match="revision 3"):
        await api.reader.get(KEY, (), Deadline.of_call(20.0), 3)
    api.store.end("two", "three")
    await soon(waiter)


@pytest.mark.parametrize(("revision", "reads"), [(1, 1), (2, 2)])
async def test_a_start_that_the_first_read_has_seen_costs_no_other(
    api: Api, revision: int, reads: int
) -> None:
    api.store.gate.clear()
    waiter = api.get()
    await wait_until(lambda: api.store.reads == 1)
    api.wire.say("started", run=f"run-{revision}")
    await asyncio.sleep(0.01)
    api.store.now(revision=revision)
    api.store.gate.set()
    await wait_until(lambda: api.store.reads == reads)
    await api.parked()
    assert api.store.reads == reads
    waiter.cancel()
    await asyncio.wait({waiter})


async def test_when_the_server_stops_those_who_wait_are_told_what_exists(api: Api) -> None:
    api.store.now(one=COMPLETED)
    waiters = [api.get(), api.get("two")]
    await api.parked(2)
    api.waiting.release()
    for waiter in waiters:
        assert states(await soon(waiter))["one"] == "COMPLETED"
    late = await soon(api.get())
    assert states(late)["one"] == "COMPLETED"


async def test_a_waiter_that_goes_away_harms_no_other(api: Api) -> None:
    waiters = [api.get() for _ in range(3)]
    await api.parked(3)
    api.store.gate.clear()
    api.store.end("one", "two", "three")
    before = api.store.reads
    await wait_until(lambda: api.store.reads == before + 1)
    waiters[0].cancel()
    await asyncio.wait({waiters[0]})
    assert waiters[0].cancelled()
    api.store.gate.set()
    await asyncio.gather(*map(soon, waiters[1:]))
    assert api.store.reads == before + 1


async def test_at_the_end_of_a_wait_the_answer_is_what_exists(api: Api) -> None:
    began = asyncio.get_running_loop().time()
    patient = Deadline(0.2, grace=5.0)  # a busy machine may take its time
    waiter = asyncio.create_task(api.reader.get(KEY, (), patient, 0))
    await api.parked()
    api.store.end("two")
    assert states(await soon(waiter)) == {"one": "PENDING", "two": "COMPLETED", "three": "PENDING"}
    assert 0.19 < asyncio.get_running_loop().time() - began < 3


async def test_a_wait_in_which_nothing_happened_costs_a_read_at_each_end(api: Api) -> None:
    await soon(api.get(wait=0.05))
    assert api.store.reads == 2, "it awaits the end alone, and its answer has everything"


async def test_a_caller_that_awaits_more_than_those_before_it_has_the_run_read_again(
    api: Api,
) -> None:
    for_end = api.get()
    await api.parked()
    assert api.wire.awaits[KEY] is Awaits.END
    api.store.now(one=COMPLETED)  # announced to those that await steps
    for_step = api.get("one")
    assert states(await soon(for_step))["one"] == "COMPLETED"
    assert api.wire.awaits[KEY] is Awaits.STEPS
    watch = api.reader.watch(KEY)
    await anext(watch)
    following = asyncio.ensure_future(anext(watch))
    await wait_until(lambda: api.wire.awaits[KEY] is Awaits.CHANGES)
    api.store.end("two", "three")
    assert set(states(await soon(for_end)).values()) == {"COMPLETED"}
    await following
    await watch.aclose()


async def test_a_run_that_replaces_another_is_announced_to_those_that_wait_for_its_key(
    api: Api,
) -> None:
    waiters = [api.get(), api.get("two")]
    await api.parked(2)
    api.store.now(revision=2)
    api.wire.say("started", run="run-2")
    await wait_until(lambda: api.wire.awaits[KEY] is Awaits.STEPS)
    api.store.now(revision=2, two=COMPLETED)
    api.wire.say("step", "two", run="run-2")
    await soon(waiters[1])
    api.store.now(Status.COMPLETED, revision=2, one=COMPLETED, three=COMPLETED)
    api.wire.say("ended", run="run-2")
    await soon(waiters[0])


async def test_waiters_of_other_runs_are_left_alone(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.wire.say("ended", key=RunKey("default", "other"))
    await api.parked()
    assert api.store.reads == 1
    api.store.end("one", "two", "three")
    await soon(waiter)


async def test_a_run_that_is_replaced_during_a_wait_is_waited_for(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.store.now(revision=2)
    api.wire.say("started", run="run-2")
    await api.parked()
    assert not waiter.done()
    api.store.now(Status.COMPLETED, revision=2, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    api.wire.say("ended", run="run-2")
    assert pb.GetResultsResponse.FromString(await soon(waiter)).revision == 2


async def test_a_run_that_is_cancelled_ends_the_wait(api: Api) -> None:
    waiter = api.get("one")
    await api.parked()
    api.store.now(Status.CANCELLED)
    api.wire.say("cancelled")
    answer = pb.GetResultsResponse.FromString(await soon(waiter))
    assert answer.status == pb.PRECOMPUTE_STATUS_CANCELLED


async def test_a_run_that_vanishes_during_a_wait_is_not_found(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.store.snapshot = None
    api.wire.say("dropped")
    with pytest.raises(RunNotFound):
        await soon(waiter)


async def test_an_unknown_run_is_not_found(api: Api) -> None:
    api.store.snapshot = None
    for wait in (0.0, 1.0):
        with pytest.raises(RunNotFound):
            await soon(api.get(wait=wait))


async def test_who_comes_before_those_told_of_no_run_have_left_is_told_too(api: Api) -> None:
    api.store.snapshot = None
    refused = api.waiting.join(KEY)
    try:
        for _ in range(3):
            with pytest.raises(RunNotFound):
                await soon(api.get())
    finally:
        api.waiting.leave(refused)


async def test_who_comes_after_a_run_vanished_is_not_told_what_a_watcher_saw(api: Api) -> None:
    watch = api.reader.watch(KEY)
    await anext(watch)
    api.store.snapshot = None
    api.wire.say("step", "one")
    for _ in range(3):
        with pytest.raises(RunNotFound):
            await soon(api.get())
    await watch.aclose()


@pytest.mark.parametrize("wait", [0.0, 20.0])
@pytest.mark.parametrize("ended", [(), ("one", "two", "three")])
async def test_a_step_that_the_pipeline_does_not_have_is_reported(
    api: Api, wait: float, ended: tuple[str, ...]
) -> None:
    if ended:
        api.store.end(*ended)
        await soon(api.get())
    with pytest.raises(InvalidRequest) as caught:
        await soon(api.get("one", "nope", "thre", wait=wait))
    known = "must be one of: one, three, two"
    assert [(v.field, v.description) for v in caught.value.violations] == [
        ("required_steps[1]", f"{known}; is 'nope'"),
        ("required_steps[2]", f"did you mean 'three'? {known}; is 'thre'"),
    ]


async def test_a_step_that_this_run_leaves_out_is_not_waited_for(api: Api) -> None:
    assert api.store.snapshot is not None
    api.store.snapshot.states.pop("three")  # type: ignore[attr-defined]
    api.store.now(one=COMPLETED)
    await soon(api.get("one", "three"))


async def test_an_older_revision_than_wanted_is_not_found(api: Api) -> None:
    api.store.end("one", "two", "three")
    await soon(api.get())
    with pytest.raises(RunNotFound, match="revision 2"):
        await api.reader.get(RunKey("default", "game-1"), (), Deadline.of_call(0.0), 2)
    api.store.now(Status.COMPLETED, revision=2)
    assert await api.reader.get(RunKey("default", "game-1"), (), Deadline.of_call(0.0), 2)


async def test_a_wait_for_a_later_revision_ends_at_once_where_there_is_only_an_older_one(
    api: Api,
) -> None:
    with pytest.raises(RunNotFound, match="revision 2"):
        await soon(asyncio.ensure_future(api.reader.get(KEY, (), Deadline.of_call(20.0), 2)))
    assert api.waiting.waiters == 0


async def test_a_start_announced_late_does_not_outdate_the_read_that_saw_it(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    for _ in range(2):
        api.wire.say("started", run="run-1")
    await api.parked()
    assert api.store.reads == 1
    waiter.cancel()
    await asyncio.wait({waiter})


async def test_any_announcement_of_another_run_outdates_what_is_kept(api: Api) -> None:
    """That of its start was lost."""
    api.store.end("one", "two", "three")
    await soon(api.get())
    api.wire.say("ended", run="run-1")
    api.wire.say("ended", run="after")
    await wait_until(lambda: len(api.cache) == 0)


@pytest.mark.parametrize("kind", ["started", "cancelled", "dropped"])
async def test_what_outdates_an_answer_makes_the_next_caller_read_again(
    api: Api, kind: str
) -> None:
    api.store.end("one", "two", "three")
    await soon(api.get())
    assert len(api.cache) == 1
    api.wire.say(kind)
    await wait_until(lambda: len(api.cache) == 0)
    await soon(api.get())
    assert api.store.reads == 2


@pytest.mark.parametrize("api", [0.1], indirect=True)
async def test_waiters_read_for_themselves_now_and_then(api: Api) -> None:
    api.wire.cut()
    api.wire.refusing = True
    await wait_until(lambda: not api.waiting.receiving)
    waiter = api.get()
    await api.parked()
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    await soon(waiter)


async def test_a_lost_subscription_makes_everyone_read_again(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.wire.cut()
    await wait_until(lambda: not api.waiting.receiving)
    api.store.end("one", "two", "three")  # announced to nobody
    async with asyncio.timeout(5):
        assert set(states(await waiter).values()) == {"COMPLETED"}
    assert api.wire.subscriptions == 2


async def test_while_it_cannot_subscribe_it_keeps_nothing_and_tries_again(api: Api) -> None:
    api.store.end("one", "two", "three")
    await soon(api.get())
    api.wire.refusing = True
    api.wire.cut()
    await wait_until(lambda: not api.waiting.receiving)
    assert len(api.cache) == 0
    await soon(api.get())
    assert len(api.cache) == 0
    api.wire.refusing = False
    await wait_until(lambda: api.waiting.receiving)
    await soon(api.get())
    assert len(api.cache) == 1


async def test_a_store_that_is_away_from_the_beginning_is_reported(api: Api) -> None:
    api.store.away = True
    for wait in (0.0, 20.0):
        with pytest.raises(StoreUnavailable):
            await soon(api.get(wait=wait))


async def test_a_read_while_the_server_stops_returns_what_it_saw(api: Api) -> None:
    api.store.gate.clear()
    waiter = api.get()
    await wait_until(lambda: api.store.reads == 1)
    api.wire.say("claimed")  # so that what it sees is no longer the latest
    await asyncio.sleep(0.01)
    api.waiting.release()
    api.store.gate.set()
    assert states(await soon(waiter))["one"] == "PENDING"


async def test_a_claim_is_read_for_a_watcher_beside_a_waiter_and_for_no_waiter_alone(
    api: Api,
) -> None:
    waiter = api.get("one")
    await api.parked()
    api.wire.say("claimed")
    await api.parked()
    assert api.store.reads == 1, "a claim ends no wait"
    watch = api.reader.watch(KEY)
    await anext(watch)
    following = asyncio.ensure_future(anext(watch))
    await api.parked(2)
    api.store.now(two=RUNNING)
    api.wire.say("claimed")
    assert (await asyncio.wait_for(following, 5)).states["two"] is RUNNING
    assert not waiter.done()
    await watch.aclose()
    waiter.cancel()
    await asyncio.wait({waiter})


class Outcomes(CallObservers):
    """Remembers the outcome of each GetResults."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[str] = []

    def results(self, outcome: str, seconds: float) -> None:
        self.of.append(outcome)


async def test_each_call_is_counted_by_whether_its_steps_were_there_came_or_did_not(
    api: Api,
) -> None:
    outcomes = Outcomes()
    reader = ResultReader(api.waiting, api.cache, Registry([PIPELINE]), outcomes)
    api.store.now(one=COMPLETED)
    await reader.get(KEY, ("one",), Deadline.of_call(20.0), 0)
    waiting = asyncio.create_task(reader.get(KEY, ("two",), Deadline.of_call(20.0), 0))
    await api.parked()
    api.store.end("two")
    await soon(waiting)
    await reader.get(KEY, (), Deadline.of_call(0.0), 0)
    api.store.snapshot = None
    with pytest.raises(RunNotFound):
        await reader.get(KEY, (), Deadline.of_call(0.0), 0)
    assert outcomes.of == list(ResultsOutcome)


async def test_waits_that_expire_together_share_their_last_read(api: Api) -> None:
    waiters = [api.get(wait=0.3) for _ in range(200)]
    await api.parked(200)
    reads = api.store.reads
    api.store.now(one=COMPLETED)  # silently: nobody awaits a step
    for waiter in waiters:
        assert states(await soon(waiter))["one"] == "COMPLETED"
    assert api.store.reads - reads <= 20  # on a busy machine they do not quite expire together
