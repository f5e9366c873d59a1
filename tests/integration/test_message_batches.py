"""Calls in Message Batches: the real SDK, a local API, a real Valkey, and worker processes."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from headstart import PrecomputeClient
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.providers.batch_rules import BatchRules
from headstart_service.store.message_batches import RedisMessageBatches
from headstart_service.worker.step_caller import StepCaller
from tests.support import processes
from tests.support.batches_api import BatchesApi, Result
from tests.support.batching_side import FAR, RULES, Side, Sides, environment, handed_on, polled
from tests.support.messages_api import Reply
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


async def test_a_call_that_is_needed_later_has_its_answer_from_a_batch(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: batches_api.batches and batches_api.batches[0].polls > 2)
    left = side.clock.left
    await wait_until(lambda: batches_api.batches[0].polls > 4)
    assert side.clock.left == left, "a step's clock stands still while its batch is worked on"
    usage = {"input_tokens": 10, "output_tokens": 20}
    batches_api.end(Result(text="Later.", usage=usage))
    assert await asking == "Later."
    assert not batches_api.requests, "no direct call"
    [request] = batches_api.batches[0].requests
    assert request["params"] == {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Why?"}],
    }
    assert side.meter.llm_tokens == 30
    assert side.meter.waited > 0
    await wait_until(lambda: side.permits.charged == [15])  # a budget's token is a half
    assert await side.ends() == {"answered": 1}
    # Its step's try has ended: the next one asks anew.
    again = side.asks()
    await wait_until(lambda: len(batches_api.batches) == 2)
    batches_api.end()
    assert await again == "Because."


async def test_calls_that_are_needed_soon_are_direct(sides: Sides, batches_api: BatchesApi) -> None:
    side = await sides()
    for needed_in in (0.0, RULES.least - 1):
        assert await side.asks(needed_in=needed_in)
    assert len(batches_api.requests) == 2
    assert not batches_api.batches


@pytest.mark.parametrize(
    "result",
    [
        Result("errored"),
        Result("expired"),
        Result("canceled"),
        Result(raw=b'{"custom_id": "no JSON'),
        Result(raw=b'{"custom_id": "another", "result": {"type": "succeeded"}}\n'),
        Result(raw=b""),
    ],
    ids=["errored", "expired", "canceled", "malformed", "another's", "empty"],
)
async def test_a_batch_without_an_answer_leads_to_a_direct_call(
    sides: Sides, batches_api: BatchesApi, result: Result
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: batches_api.batches)
    if result.raw == b"" and result.kind == "succeeded":
        batches_api.batches[0].status = "ended"  # with no line at all
    else:
        batches_api.end(result)
    assert await asking
    assert len(batches_api.requests) == 1
    assert await side.ends() == {"failed": 1}


async def test_a_refusal_in_a_batch_fails_as_that_of_a_direct_call(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: batches_api.batches)
    batches_api.end(Result(stop_reason="refusal"))
    with pytest.raises(StepFailed, match="declined to answer") as failed:
        await asking
    assert not failed.value.retry
    assert not batches_api.requests


async def test_what_the_api_cannot_do_now_is_tried_again_and_what_it_never_does_is_not(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await sides()
    batches_api.refusals += [Reply.status(529)]
    asking = side.asks()
    await wait_until(lambda: batches_api.batches)
    batches_api.refusals += [Reply.status(500), Reply.status(429)]
    await wait_until(lambda: not batches_api.refusals)
    batches_api.end()
    assert await asking == "Because."
    assert not batches_api.requests
    batches_api.refusals += [Reply.status(404)]  # a gateway without batches
    assert await side.asks()
    assert len(batches_api.requests) == 1
    asking = side.asks()
    await wait_until(lambda: len(batches_api.batches) == 2)
    batches_api.refusals += [Reply.status(404)]  # the batch is gone
    assert await asking
    assert len(batches_api.requests) == 2


async def test_a_late_batch_is_canceled_before_the_need_and_its_call_made_directly(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await handed_on(sides, batches_api)
    batches_api.ends_canceled = Result("")  # it goes on for a while
    assert await side.asks(attempt=2, needed_in=10.3)
    assert (
        len(batches_api.batches),
        batches_api.batches[0].cancels,
        len(batches_api.requests),
    ) == (1, 1, 1)
    assert await side.ends() == {"late": 1}
    # What it costs all the same is counted.
    batches_api.end(Result(usage={"input_tokens": 100, "output_tokens": 100}))
    await wait_until(lambda: 100 in side.permits.charged)


async def test_a_batch_that_ends_while_it_is_canceled_gives_its_answer(
    sides: Sides, batches_api: BatchesApi
) -> None:
    side = await handed_on(sides, batches_api)
    batches_api.ends_canceled = Result(text="Just in time.")
    assert await side.asks(attempt=2, needed_in=1.0) == "Just in time."
    assert not batches_api.requests


async def test_a_cancelled_call_cancels_its_batch_unless_another_takes_it(
    sides: Sides, batches_api: BatchesApi, kept_batches: RedisMessageBatches
) -> None:
    side = await sides()
    asking = side.asks()
    await wait_until(lambda: batches_api.batches and batches_api.batches[0].polls)
    asking.cancel()
    await wait_until(lambda: batches_api.batches[0].cancels)
    assert await side.ends() == {"left": 1}

    replacing = BatchRules(least=60.0, first=0.02, longest=0.1, grace=60.0)
    replaced = Side(batches_api, kept_batches, replacing)
    async with replaced.model:
        asking = replaced.asks()
        await wait_until(lambda: len(batches_api.batches) == 2 and batches_api.batches[1].polls)
        asking.cancel()
        await asyncio.wait({asking})
        polls = batches_api.batches[1].polls
        asking = side.asks(run="2-0")
        await wait_until(lambda: batches_api.batches[1].polls > polls)
    # Its grace has ended with the model.
    batches_api.end(Result(text="Kept."))
    assert await asking == "Kept."
    assert (len(batches_api.batches), batches_api.batches[1].cancels) == (2, 0)


async def test_a_worker_that_drains_hands_its_batch_on(
    sides: Sides, batches_api: BatchesApi, kept_batches: RedisMessageBatches
) -> None:
    one, two = Side(batches_api, kept_batches, RULES), await sides()
    async with one.model:
        asking = one.asks()
        await wait_until(lambda: batches_api.batches and batches_api.batches[0].polls)
        one.governor.drain()
        with pytest.raises(ExecutorUnavailable):
            await asking
    taken = two.asks(run="2-0")
    polls = batches_api.batches[0].polls
    await wait_until(lambda: batches_api.batches[0].polls > polls)
    batches_api.end(Result(text="Handed on."))
    assert await taken == "Handed on."
    assert (len(batches_api.batches), batches_api.batches[0].cancels) == (1, 0)


async def test_an_answer_is_read_again_when_its_try_was_cut_off(
    sides: Sides, batches_api: BatchesApi
) -> None:
    one, two = await sides(), await sides()
    caller = StepCaller("games", "1-0", 1, time.monotonic() + FAR, "k", "1-0", 1)
    one.enter(caller)  # of a worker that is killed before the try ends
    asking = asyncio.create_task(one.model.text(prompt="Why?", max_tokens=9, batch=True))
    await wait_until(lambda: batches_api.batches)
    batches_api.end(Result(text="Once."))
    assert (await asking).text == "Once."
    assert await two.asks(attempt=2) == "Once."
    assert len(batches_api.batches) == 1


async def test_without_redis_the_call_is_direct(
    sides: Sides, batches_api: BatchesApi, valkey: Valkey
) -> None:
    side = await sides()
    await valkey.kill()
    assert await side.asks()
    assert len(batches_api.requests) == 1
    assert not batches_api.batches


async def test_no_batch_is_paid_twice_when_its_worker_is_killed(
    valkey: Valkey, batches_api: BatchesApi
) -> None:
    own = environment(batches_api)
    async with (
        processes.api(valkey.url, **own) as (_, address),
        PrecomputeClient(address) as client,
    ):
        async with processes.worker(valkey.url, **own) as killed:
            await client.start("k", "unhurried", {}, expected_need_in=7200)
            await wait_until(polled(batches_api, 0))
            # The run that waits has no slot, so the only one is free for another.
            await client.start("d", "patient", {})
            assert (await client.get_results("d", wait=30)).artifact("patient")
            batches_api.end(Result(text="one", usage={"input_tokens": 10, "output_tokens": 1}))
            await wait_until(polled(batches_api, 1))
            killed.kill()
        polls = [batch.polls for batch in batches_api.batches]
        async with processes.worker(valkey.url, **own) as last:
            await wait_until(polled(batches_api, 0, polls[0]))  # the first answer is read again
            await wait_until(polled(batches_api, 1, polls[1]))
            batches_api.end(Result(text="two", usage={"input_tokens": 20, "output_tokens": 2}))
            results = await client.get_results("k", wait=30)
            assert results.artifact("unhurried", list) == ["one", "two"]
            assert (len(batches_api.batches), len(batches_api.requests)) == (2, 1)
            assert not any(batch.cancels for batch in batches_api.batches)
            stats = await client.get_stats()
            assert sum(fate.llm_tokens for fate in stats.ledger.fates.values()) == 33 + 2

            # A cancelled run's batch is canceled, at the latest when its worker ends.
            await client.start("c", "unhurried", {}, expected_need_in=7200)
            await wait_until(polled(batches_api, 2))
            await client.cancel("c")
            await last.says("default/c .* cancelled or replaced")
            last.send(signal.SIGTERM)
            assert await last.ended() == 0
        assert [batch.cancels for batch in batches_api.batches] == [0, 0, 1]
