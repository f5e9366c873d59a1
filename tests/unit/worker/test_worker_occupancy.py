"""Slots belong to what computes: a run that only waits for others keeps none from anyone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from headstart_service.worker.batching import Batcher
from headstart_service.worker.capacity import Slots
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.occupancy import occupying, within
from headstart_service.worker.worker import Worker
from headstart_service.worker.worker_rules import WorkerRules
from tests.support.job_queue import FakeQueue, Gates, job_of, working
from tests.support.ledger import pipeline_of
from tests.support.virtual_time import run_virtually
from tests.support.waiting import wait_until


def test_runs_that_wait_for_others_hold_no_slots() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=2, runs=100) as worker:
            queue.jobs["next_jobs"] += [job_of(f"run-{number}") for number in range(50)]
            await asyncio.sleep(5.0)
            assert (len(gates.begun), worker.held, worker.busy, worker.problem) == (50, 50, 0, "")
            for number in range(50):
                gates.open[f"run-{number}"].set()
            await asyncio.sleep(1.0)
            assert (worker.held, len(queue.finished)) == (0, 50)
            assert None not in queue.slot_seconds

    run_virtually(test())


def test_a_worker_holds_no_more_runs_than_it_may() -> None:
    async def test() -> None:
        queue, gates = FakeQueue(), Gates()
        async with working(queue, gates, concurrency=2, runs=5) as worker:
            queue.jobs["next_jobs"] += [job_of(f"run-{number}") for number in range(8)]
            await asyncio.sleep(60.0)
            assert worker.held == 5
            for number in range(8):
                gates.open[f"run-{number}"].set()
            await asyncio.sleep(5.0)
            assert len(queue.finished) == 8

    run_virtually(test())


def test_a_step_in_a_thread_holds_its_slot_until_it_has_ended() -> None:
    class Named(BaseModel):
        name: str

    go_on = threading.Event()

    @step(runs_on="thread", required=True)
    def computes(name: str) -> str:
        assert go_on.wait(30)
        return name

    async def test() -> None:
        queue = FakeQueue()
        rules = WorkerRules(name="w1", concurrency=2, runs=100, lease=15.0, drain=5.0)
        async with Executors(ExecutorRules(threads=1)) as executors:
            registry = Registry([pipeline_of(computes, inputs=Named)])
            worker = Worker(queue, registry, {}, rules, executors=executors)
            serving = asyncio.create_task(worker.serve())
            queue.jobs["next_jobs"] += [job_of(f"run-{number}") for number in range(6)]
            await wait_until(lambda: worker.busy == 2)
            await asyncio.sleep(0.2)  # longer than a run's beginning counts
            assert (worker.busy, worker.held) == (2, 2)
            go_on.set()
            await wait_until(lambda: len(queue.finished) == 6)
            worker.stop()
            await serving

    asyncio.run(test())


async def test_what_waits_for_the_model_holds_its_slot() -> None:
    slots, go_on = Slots(1, 9), threading.Event()

    def compute(items: Sequence[int]) -> Sequence[int]:
        assert go_on.wait(30)
        return items

    async with Batcher(compute, max_batch=4, max_waiting=4, name="model") as batcher:
        await slots.take()
        occupancy = slots.occupancy()
        asking = asyncio.create_task(batcher.submit(1), context=within(occupancy))
        await asyncio.sleep(0)
        occupancy.begun()
        assert occupancy.occupied
        assert slots.short
        go_on.set()
        assert await asking == 1
        assert not occupancy.occupied
        assert not slots.short
        slots.end(occupancy)


async def test_a_run_that_goes_on_computing_waits_for_no_slot_but_new_runs_do() -> None:
    slots = Slots(1, 9)
    await slots.take()
    first = slots.occupancy()
    first.begun()
    await slots.take()
    second = slots.occupancy()
    first.enter()  # both compute, where one may
    second.begun()
    taking = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not taking.done()
    first.leave()
    await taking
    for each in (first, second, slots.occupancy()):
        slots.end(each)
    assert await slots.take_free() == 1


async def test_a_shared_step_holds_the_slot_of_the_run_that_began_it_until_it_has_ended() -> None:
    slots = Slots(1, 9)
    await slots.take()
    occupancy = slots.occupancy()
    occupancy.enter()
    slots.end(occupancy)  # the run was replaced, and its step goes on for the next revision
    assert slots.short
    occupancy.leave()
    assert not slots.short


async def test_runs_with_too_many_bytes_keep_new_ones_out_until_they_end() -> None:
    slots = Slots(4, 9)
    await slots.take()
    occupancy = slots.occupancy()
    occupancy.keep(300 * 1024 * 1024)
    assert slots.short
    assert await slots.take_free() == 0
    slots.end(occupancy)
    assert await slots.take_free() == 4


async def test_places_that_a_cancelled_task_had_asked_for_or_got_go_to_the_next() -> None:
    slots = Slots(1, 1)
    await slots.take()
    taking = [asyncio.create_task(slots.take()) for _ in range(3)]
    await asyncio.sleep(0)
    taking[0].cancel()
    slots.give_back()  # granted to the second
    taking[1].cancel()  # before it could go on
    await asyncio.wait(taking)
    assert taking[2].done()
    assert not taking[2].cancelled()
    slots.give_back()
    assert not slots.short


def test_a_worker_that_is_full_of_bytes_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    slots = Slots(2, 9)
    large, small = slots.occupancy(), slots.occupancy()
    with caplog.at_level(logging.INFO):
        large.keep(255 * 1024 * 1024)
        for _ in range(5):  # around the limit
            small.keep(2 * 1024 * 1024)
            small.keep(-2 * 1024 * 1024)
        assert slots.short
        large.end()
        assert not slots.short
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "keep 257 MiB" in caplog.text


async def test_a_run_alone_waits_until_all_others_have_ended() -> None:
    slots = Slots(2, 4)
    await slots.take()
    other = slots.occupancy()
    other.begun()  # it only waits for others, and would be lost with this worker all the same
    task = asyncio.create_task(slots.take_all())
    await asyncio.sleep(0)
    assert not task.done()
    slots.end(other)
    await task
    assert slots.short
    slots.give_back_all()
    assert await slots.take_free() == 2


def test_outside_of_a_run_nothing_is_occupied() -> None:
    with occupying():
        pass


def test_only_the_time_in_a_slot_counts_for_the_queue_behind_a_run() -> None:
    slots = Slots(1, 2)
    asyncio.run(slots.take())
    occupancy = slots.occupancy()
    at_first = occupancy.seconds
    assert occupancy.seconds > at_first
    occupancy.begun()
    had = occupancy.seconds
    assert occupancy.seconds == had, "it only waits"
    occupancy.enter()
    assert occupancy.seconds > had
    occupancy.leave()
    slots.end(occupancy)
