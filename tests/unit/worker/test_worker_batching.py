from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from headstart_service.domain.errors import StepFailed
from headstart_service.worker.batching import Batcher, ComputeFailed
from tests.support.ledger import tasks_left
from tests.support.waiting import wait_until

NAME = "engine-test"


class Doubler:
    """Doubles numbers; each batch waits until it is let go, if `held`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(10)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [2 * item for item in items]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


def batcher(compute: Doubler, max_batch: int = 8, max_waiting: int = 100) -> Batcher[int, int]:
    return Batcher(compute, max_batch=max_batch, max_waiting=max_waiting, name=NAME)


def submit(batches: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batches.submit(item)) for item in items]


async def busy(doubler: Doubler, batches: Batcher[int, int]) -> asyncio.Task[int]:
    """A batch that is being computed until `doubler.go` is set."""
    doubler.go.clear()
    (first,) = submit(batches, 0)
    await wait_until(lambda: doubler.batches)
    return first


async def test_an_item_is_computed_at_once_on_a_thread_of_its_own(doubler: Doubler) -> None:
    async with batcher(doubler) as batches:
        assert await batches.submit(21) == 42
        assert await batches.submit(1) == 2
    assert doubler.batches == [[21], [1]]
    assert doubler.threads == {f"{NAME}_0"}


async def test_items_gather_while_a_batch_is_computed(doubler: Doubler) -> None:
    async with batcher(doubler) as batches:
        first = await busy(doubler, batches)
        rest = submit(batches, 1, 2, 3)
        await asyncio.sleep(0)
        doubler.go.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6]
    assert doubler.batches == [[0], [1, 2, 3]]


async def test_no_batch_is_larger_than_allowed(doubler: Doubler) -> None:
    async with batcher(doubler, max_batch=2) as batches:
        first = await busy(doubler, batches)
        rest = submit(batches, 1, 2, 3, 4, 5)
        await asyncio.sleep(0)
        doubler.go.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]
    assert doubler.batches == [[0], [1, 2], [3, 4], [5]]


async def test_a_full_queue_holds_callers_back_until_there_is_room(doubler: Doubler) -> None:
    async with batcher(doubler, max_batch=2, max_waiting=2) as batches:
        first = await busy(doubler, batches)
        rest = submit(batches, *range(1, 8))
        await asyncio.sleep(0)
        doubler.go.set()
        assert await asyncio.gather(first, *rest) == [2 * n for n in range(8)]
    assert max(map(len, doubler.batches)) == 2


async def test_what_a_cancelled_caller_wanted_is_not_computed(doubler: Doubler) -> None:
    async with batcher(doubler) as batches:
        first = await busy(doubler, batches)
        gone, stays = submit(batches, 1, 2)
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        doubler.go.set()
        assert await asyncio.gather(first, stays) == [0, 4]
    assert doubler.batches == [[0], [2]]


async def test_a_caller_cancelled_during_its_batch_harms_no_other(doubler: Doubler) -> None:
    async with batcher(doubler) as batches:
        first = await busy(doubler, batches)
        gone, stays = submit(batches, 1, 2)
        await asyncio.sleep(0)
        doubler.go.set()
        await first
        doubler.go.clear()
        await wait_until(lambda: len(doubler.batches) == 2)
        gone.cancel()
        doubler.go.set()
        assert await stays == 4
        assert gone.cancelled() or await asyncio.wait({gone})


async def test_an_item_that_cannot_be_computed_fails_no_other_of_its_batch() -> None:
    batches_seen: list[list[int]] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        batches_seen.append(list(items))
        if 2 in items:
            raise ValueError("two")
        return [2 * item for item in items]

    async with Batcher(compute, max_batch=8, max_waiting=8, name=NAME) as batches:
        tasks = submit(batches, 0, 1, 2, 3)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[i] for i in (0, 1, 3)] == [0, 2, 6]
        assert isinstance(answers[2], ValueError)
        assert batches_seen[-4:] == [[0], [1], [2], [3]]
        assert await batches.submit(5) == 10


async def test_an_item_that_is_refused_joins_no_batch(doubler: Doubler) -> None:
    def check(item: int) -> None:
        if item < 0:
            raise StepFailed("must be 0 or more", retry=False)

    async with Batcher(doubler, max_batch=8, max_waiting=8, name=NAME, check=check) as batches:
        answers = await asyncio.gather(*submit(batches, 1, -1, 2), return_exceptions=True)
    assert [answers[0], answers[2]] == [2, 4]
    assert isinstance(answers[1], StepFailed)
    assert not any(item < 0 for batch in doubler.batches for item in batch)


async def test_what_is_no_exception_ends_neither_the_batcher_nor_the_loop() -> None:
    def compute(items: Sequence[int]) -> Sequence[int]:
        if 1 in items:
            raise SystemExit(0)  # as a Rust library's panic it is no Exception
        return items

    async with Batcher(compute, max_batch=8, max_waiting=8, name=NAME) as batches:
        answers = await asyncio.gather(*submit(batches, 0, 1, 2), return_exceptions=True)
        assert [answers[0], answers[2]] == [0, 2]
        assert isinstance(answers[1], ComputeFailed)
        assert await batches.submit(5) == 5


async def test_closing_while_items_are_computed_alone_cancels_those_that_wait() -> None:
    gate = threading.Event()
    alone = threading.Event()

    def compute(items: Sequence[int]) -> Sequence[int]:
        if len(items) > 1:
            raise ValueError("together")
        alone.set()
        assert gate.wait(10)
        return items

    async with Batcher(compute, max_batch=8, max_waiting=8, name=NAME) as batches:
        waiting = submit(batches, 1, 2, 3)
        await wait_until(alone.is_set)
        threading.Timer(0.05, gate.set).start()
    async with asyncio.timeout(5):
        await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)


async def test_a_wrong_number_of_values_fails_the_batch_and_not_the_batcher() -> None:
    def compute(items: Sequence[int]) -> Sequence[int]:
        return [7] if items == [3] else []

    async with Batcher(compute, max_batch=8, max_waiting=8, name=NAME) as batches:
        both = await asyncio.gather(*submit(batches, 1, 2), return_exceptions=True)
        assert [str(error) for error in both] == ["0 values for 1 items"] * 2
        assert await batches.submit(3) == 7


async def test_closing_cancels_everyone_who_waits_and_leaves_nothing(doubler: Doubler) -> None:
    async with batcher(doubler, max_waiting=2) as batches:
        first = await busy(doubler, batches)
        queued = submit(batches, 1, 2)
        await asyncio.sleep(0)
        held_back = submit(batches, *range(3, 10))
        await asyncio.sleep(0)
        # The thread cannot be interrupted: it ends once its batch is computed.
        threading.Timer(0.05, doubler.go.set).start()
    async with asyncio.timeout(5):
        await asyncio.wait([first, *queued, *held_back])
    assert first.cancelled()
    assert all(task.cancelled() for task in [*queued, *held_back])
    assert doubler.batches == [[0]]
    assert tasks_left() == set()
    assert not [t for t in threading.enumerate() if t.name.startswith(NAME)]


async def test_a_batcher_that_is_not_open_refuses_at_once(doubler: Doubler) -> None:
    batches = batcher(doubler)
    with pytest.raises(RuntimeError, match="not open"):
        await batches.submit(1)
    async with batches:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await batches.submit(1)
