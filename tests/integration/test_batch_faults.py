"""What must cost no second call: faults, killed workers, and runs that are needed sooner."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from headstart import PrecomputeClient
from headstart_service.worker.hurry import Hurry
from headstart_service.worker.step_caller import StepCaller
from tests.support import processes
from tests.support.batches_api import BatchesApi, Result
from tests.support.batching_side import FAR, RULES, Sides, environment, handed_on, polled, served
from tests.support.messages_api import Reply
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SELDOM = replace(RULES, first=60.0, longest=60.0)
"""Nobody looks at a batch but for news."""
LATER = 7200
"""Seconds until runs are needed."""


async def canceled(batches_api: BatchesApi, number: int = 0) -> None:
    """Return once a batch has been canceled, and not twice."""
    await wait_until(lambda: batches_api.batches[number].cancels)
    assert batches_api.batches[number].cancels == 1


async def test_a_refused_cancel_is_repeated(sides: Sides, batches_api: BatchesApi) -> None:
    side = await handed_on(sides, batches_api)
    batches_api.refused_cancels += [Reply.status(529), Reply.status(401)]
    assert await side.asks(attempt=2, needed_in=10.3)
    assert len(batches_api.requests) == 1
    await canceled(batches_api)


async def test_a_batch_that_ends_right_before_its_cancel_gives_its_answer_s_cost(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await handed_on(sides, batches_api)
    batches_api.before_cancel = Result(usage={"input_tokens": 100, "output_tokens": 100})
    assert await side.asks(attempt=2, needed_in=1.0)
    await wait_until(lambda: 100 in side.permits.charged)


async def test_a_call_that_is_cancelled_while_it_is_handed_in_leaves_no_batch(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await sides()
    batches_api.slowness = 0.5
    asking = side.asks()
    await wait_until(lambda: batches_api.batches)
    asking.cancel()
    await canceled(batches_api)


@pytest.mark.parametrize(
    "reply",
    [Reply(200, b"<html>", {"content-type": "text/html"}), Reply.status(401), Reply.status(400)],
    ids=["unreadable", "refused", "bad"],
)
async def test_a_batch_that_cannot_be_looked_at_is_canceled(
    sides: Sides, batches_api: BatchesApi, reply: Reply
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: batches_api.batches and batches_api.batches[0].polls)
    batches_api.refusals.append(reply)
    assert await asking
    assert len(batches_api.requests) == 1
    await canceled(batches_api)


async def test_a_run_that_is_handed_on_keeps_its_batch(
    sides: Sides, batches_api: BatchesApi
) -> None:
    one, two = await sides(), await sides()
    asking = one.asks()
    await wait_until(polled(batches_api, 0))
    one.occupancy.handed_on = True
    asking.cancel()
    await asyncio.wait({asking})
    await one.model.__aexit__(None, None, None)  # its grace is over
    polls = batches_api.batches[0].polls
    asking = two.asks(attempt=2)
    await wait_until(polled(batches_api, 0, polls))
    batches_api.end(Result(text="Kept."))
    assert await asking == "Kept."
    assert not batches_api.batches[0].cancels


async def test_a_call_that_its_step_left_behind_ends_with_the_step(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await sides(SELDOM)
    this_try = side.enter(StepCaller("games", "1-0", 1, time.monotonic() + FAR, "k", "1-0", 1))
    calls = [
        asyncio.create_task(side.model.text(prompt=prompt, max_tokens=9, batch=True))
        for prompt in "ab"
    ]
    await wait_until(lambda: len(batches_api.batches) == 2)
    this_try.end()  # as `gather` fails with its first call, and leaves the others behind
    await canceled(batches_api, 0)
    await canceled(batches_api, 1)
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    assert not batches_api.requests


async def test_the_same_questions_of_two_steps_have_batches_of_their_own(
    sides: Sides, batches_api: BatchesApi
) -> None:
    one, two = await sides(), await sides()  # a run's worker, and that of another pool
    asking = one.asks(step="first")
    await wait_until(lambda: batches_api.batches and batches_api.batches[0].polls)
    other = two.asks(run="2-0", step="second")
    await wait_until(lambda: len(batches_api.batches) == 2)
    for batch in batches_api.batches:
        batches_api.end(Result(text=batch.id), batch)
    assert (await asking, await other) == ("msgbatch_0", "msgbatch_1")


async def test_a_claim_with_a_waiting_caller_takes_its_batch_over(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await handed_on(sides, batches_api)
    assert await side.asks(attempt=2, needed_in=0)  # as of a claim for which a caller waits
    assert len(batches_api.requests) == 1
    await canceled(batches_api)
    side = await handed_on(sides, batches_api)
    batches_api.end(Result(text="There."))
    assert await side.asks(attempt=2, needed_in=0) == "There."


async def test_a_call_for_whose_step_a_caller_waits_is_made_directly(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side, hurry = await sides(SELDOM), Hurry()
    asking = side.asks(hurry=hurry)
    await wait_until(lambda: batches_api.batches)
    hurry.set()
    assert await asking
    assert len(batches_api.requests) == 1
    await canceled(batches_api)
    assert await side.asks(hurry=hurry)
    assert (len(batches_api.requests), len(batches_api.batches)) == (2, 1)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_caller_that_waits_takes_what_the_api_has_and_waits_for_no_more(
    sides: Sides, batches_api: BatchesApi, *, answers: bool
) -> None:
    side, hurry = await handed_on(sides, batches_api, SELDOM), Hurry()
    polls = batches_api.batches[0].polls
    asking = side.asks(attempt=2, hurry=hurry)
    await wait_until(polled(batches_api, 0, polls))
    if answers:
        batches_api.end(Result(text="There."))
    else:
        batches_api.refusals.append(Reply(200, b"", delay=6.0))
    hurry.set()
    if answers:
        assert await asking == "There."
        assert not batches_api.requests
        return
    assert await asking
    assert len(batches_api.requests) == 1
    await canceled(batches_api)


async def test_a_caller_that_waits_ends_the_wait_of_a_call_that_is_handed_in(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side, hurry = await sides(SELDOM), Hurry()
    batches_api.slowness = 1.0
    asking = side.asks(hurry=hurry)
    await wait_until(lambda: batches_api.batches)
    hurry.set()
    assert await asking
    assert not batches_api.batches[0].polls, "its name is not known yet"
    await canceled(batches_api)
    assert (len(batches_api.requests), len(batches_api.batches)) == (1, 1)


async def test_a_caller_that_waits_ends_a_look_at_a_batch(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side, hurry = await sides(), Hurry()
    asking = side.asks(hurry=hurry)
    await wait_until(polled(batches_api, 0))
    batches_api.refusals.append(Reply(200, b"", delay=6.0))
    await wait_until(lambda: not batches_api.refusals)
    hurry.set()
    assert await asking
    assert len(batches_api.requests) == 1
    await canceled(batches_api)


async def test_a_step_s_calls_are_hurried_together(sides: Sides, batches_api: BatchesApi) -> None:
    side, hurry = await handed_on(sides, batches_api), Hurry()
    caller = StepCaller("games", "1-0", 1, time.monotonic() + FAR, "k", "1-0", 2, hurry=hurry)

    async def step() -> list[str]:
        side.enter(caller)
        questions = (
            side.model.text(prompt=prompt, max_tokens=9, batch=True)
            for prompt in ("Why?", "a", "b")
        )
        return [answer.text for answer in await asyncio.gather(*questions)]

    asking = asyncio.create_task(step())
    await wait_until(lambda: len(batches_api.batches) == 3)
    batches_api.end(Result(text="There."), batches_api.batches[0])
    await wait_until(lambda: side.permits.charged)
    hurry.set()
    answers = await asking
    assert answers.count("There.") == 1
    assert len(batches_api.requests) == 2
    await canceled(batches_api, 1)
    await canceled(batches_api, 2)


async def test_a_caller_that_waits_ends_the_wait_of_an_api_that_takes_no_batch(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side, hurry = await sides(SELDOM), Hurry()
    batches_api.refusals += [Reply.status(529, retry_after="60")]
    asking = side.asks(hurry=hurry)
    await wait_until(lambda: not batches_api.refusals)
    hurry.set()
    assert await asking
    assert (len(batches_api.requests), len(batches_api.batches)) == (1, 0)


async def test_a_caller_that_comes_early_has_its_result_at_once(
    valkey: Valkey, batches_api: BatchesApi
) -> None:
    async with served(valkey, batches_api) as (client, _):
        await client.start("k", "unhurried", {}, expected_need_in=LATER)
        await wait_until(polled(batches_api, 0))
        assert (await client.get_results("k")).missing == ("unhurried",)
        assert not batches_api.requests, "nobody waits"
        results = await client.get_results("k", wait=30)
        assert len(results.artifact("unhurried", list)) == 2
        await canceled(batches_api)
        assert (len(batches_api.batches), len(batches_api.requests)) == (1, 2)


async def test_a_start_that_joins_the_run_and_needs_it_sooner_hurries_it(
    valkey: Valkey, batches_api: BatchesApi
) -> None:
    async with served(valkey, batches_api) as (client, _):
        await client.start("k", "unhurried", {}, expected_need_in=LATER)
        await wait_until(polled(batches_api, 0))
        await client.start("k", "unhurried", {}, expected_need_in=LATER)
        assert not batches_api.requests
        await client.start("k", "unhurried", {}, expected_need_in=20)
        await wait_until(lambda: len(batches_api.requests) == 2)
        await canceled(batches_api)


async def test_an_hour_is_later(valkey: Valkey, batches_api: BatchesApi) -> None:
    async with served(valkey, batches_api) as (client, _):
        await client.start("k", "unhurried", {}, expected_need_in=3600)
        await wait_until(lambda: batches_api.batches or batches_api.requests)
        assert batches_api.batches


async def test_a_restarted_run_takes_no_answer_of_an_earlier_one(
    valkey: Valkey, batches_api: BatchesApi
) -> None:
    async with served(valkey, batches_api) as (client, worker):
        await client.start("k", "unhurried", {}, expected_need_in=LATER)
        await wait_until(polled(batches_api, 0))
        batches_api.end(Result(text="old"))
        await wait_until(polled(batches_api, 1))
        await client.cancel("k")
        await worker.says("default/k .* cancelled or replaced")
        await client.start("k", "unhurried", {}, expected_need_in=LATER, restart=True)
        for number, text in ((2, "new"), (3, "newer")):
            await wait_until(polled(batches_api, number))
            batches_api.end(Result(text=text))
        results = await client.get_results("k", wait=30)
        assert results.artifact("unhurried", list) == ["new", "newer"]


async def killed_twice(valkey: Valkey, batches_api: BatchesApi, client: PrecomputeClient) -> int:
    """Begin a run, and kill two workers that wait for its batch; return how often they looked."""
    await client.start("k", "unhurried", {}, expected_need_in=LATER)
    polls = 0
    for _ in range(2):
        async with processes.worker(valkey.url, **environment(batches_api)) as worker:
            await wait_until(polled(batches_api, 0, polls))
            polls = batches_api.batches[0].polls
            worker.kill()
    return polls


async def test_a_last_try_keeps_its_worker_for_no_batch(
    valkey: Valkey, batches_api: BatchesApi
) -> None:
    own = environment(batches_api)
    async with (
        processes.api(valkey.url, **own) as (_, address),
        PrecomputeClient(address) as client,
    ):
        await killed_twice(valkey, batches_api, client)
        async with processes.worker(valkey.url, **own):
            await wait_until(lambda: len(batches_api.requests) == 2)
            await canceled(batches_api)
            assert len(batches_api.batches) == 1
            await client.start("d", "patient", {})
            assert (await client.get_results("d", wait=30)).artifact("patient")
