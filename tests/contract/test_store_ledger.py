"""What became of each run and of each step's work: counted once, whatever happens."""

from __future__ import annotations

import time

from headstart_service.domain import (
    Claim,
    Fate,
    Ledger,
    RunKey,
    Status,
    StepRecord,
    StepState,
    StepWork,
    Work,
)
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import FAILURE_TTL, TTL, Backend, plan
from tests.contract.lines import numbers_of
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")
FIRST = StepWork(2.0, 1.5, 300)
SECOND = StepWork(0.25, 0.125)


def worked(name: str, work: StepWork, state: StepState = StepState.COMPLETED) -> StepRecord:
    return StepRecord(name, state, f"<{name}>".encode(), work)


ENDED = [worked("first", FIRST), worked("second", SECOND)]
WHOLE = Work(1, 2, 2.25, 1.625, 300)
ONLY_FIRST = Work(1, 1, 2.0, 1.5, 300)
ONLY_SECOND = Work(1, 1, 0.25, 0.125)


async def finish(backend: Backend, claim: Claim) -> None:
    await backend.queue.finish(claim.lease, ENDED, Status.COMPLETED, "")


async def complete(backend: Backend, key: RunKey = KEY, ttl: float = TTL) -> None:
    await backend.start(key, ttl=ttl)
    await finish(backend, await backend.claim())


async def ledger(backend: Backend, namespace: str = "") -> Ledger:
    found = (await backend.store.stats(namespace)).ledger
    assert found is not None
    assert found.starts == found.open + sum(work.runs for work in found.fates.values())
    return found


async def settled(backend: Backend, starts: int = 1) -> dict[Fate, Work]:
    """The fates of work, when that of every run is known; with all namespaces the same."""
    own, found = await ledger(backend, "games"), await ledger(backend)
    assert own == found
    assert (found.starts, found.open) == (starts, 0)
    return {fate: work for fate, work in found.fates.items() if work != Work()}


async def test_a_store_that_has_started_nothing_has_no_ledger(store_backend: Backend) -> None:
    assert (await store_backend.store.stats("")).ledger is None


async def test_a_result_that_is_there_is_used_ready_and_counts_once(store_backend: Backend) -> None:
    began = time.time_ns() // 1000
    await complete(store_backend)
    assert (await ledger(store_backend)).open == 1
    await store_backend.store.inspect(KEY)
    await store_backend.store.status(KEY)
    assert (await ledger(store_backend)).open == 1, "who only looks on does not use it"
    for _ in range(3):
        found = await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.USED_READY: WHOLE}
    told = await ledger(store_backend)
    summary = found.summary
    took = (summary.completed_us - summary.started_us) / 1e6
    assert told.hidden == told.pipelines["probe"].seconds == took
    assert (told.waited, told.pipelines["probe"].runs) == (0, 1)
    assert abs(told.since_us - began) < 60e6
    await store_backend.start(KEY)
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.USED_READY: WHOLE}
    assert (await ledger(store_backend)).reused == 1


async def test_what_was_there_when_the_first_reader_came_is_ready_and_the_rest_is_waited_for(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.store.read(KEY)
    line = await store_backend.redis("HGET", store_backend.keys_of(KEY).fixed[12], "games:game-1")
    [first] = numbers_of(line)
    await store_backend.start(KEY)
    assert (await ledger(store_backend)).joined == 1
    await store_backend.queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    await store_backend.queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    found = await store_backend.store.read(KEY)
    assert await settled(store_backend) == {
        Fate.USED_READY: Work(0, 1, 2.0, 1.5, 300),
        Fate.USED_WAITED: ONLY_SECOND,
    }
    told = await ledger(store_backend)
    assert told.hidden == (first // 2 - found.summary.started_us) / 1e6
    assert told.waited == (found.summary.completed_us - first // 2) / 1e6


async def test_of_several_reads_before_the_end_the_first_begins_the_wait(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.store.read(KEY)
    line = await store_backend.redis("HGET", store_backend.keys_of(KEY).fixed[12], "games:game-1")
    [first] = numbers_of(line)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.store.read(KEY)
    await store_backend.queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    found = await store_backend.store.read(KEY)
    told = await ledger(store_backend)
    assert told.hidden == (first // 2 - found.summary.started_us) / 1e6
    assert told.waited == (found.summary.completed_us - first // 2) / 1e6


async def test_a_reader_who_came_before_the_work_began_was_spared_nothing(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    await store_backend.store.read(KEY)
    await finish(store_backend, await store_backend.claim())
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.USED_WAITED: WHOLE}
    told = await ledger(store_backend)
    assert told.hidden == 0
    assert told.waited > 0


async def test_what_expires_unread_is_settled_even_after_redis_has_dropped_it(
    store_backend: Backend,
) -> None:
    await complete(store_backend, ttl=0.05)
    await wait_until(lambda: _is_gone(store_backend))
    await store_backend.queue.sweep()
    assert await settled(store_backend) == {Fate.EXPIRED: WHOLE}


async def _is_gone(backend: Backend) -> bool:
    return await backend.find(KEY) is None


async def test_a_run_that_was_read_in_part_is_used_and_the_rest_of_it_expires(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY, ttl=0.05)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.store.read(KEY)
    await store_backend.queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    await wait_until(lambda: _is_gone(store_backend))
    await store_backend.queue.sweep()
    assert await settled(store_backend) == {
        Fate.USED_READY: Work(0, 1, 2.0, 1.5, 300),
        Fate.USED_WAITED: Work(1),
        Fate.EXPIRED: Work(0, 1, 0.25, 0.125),
    }


async def test_what_makes_room_unread_is_evicted(store_backend: Backend) -> None:
    store: RedisStore = store_backend.new_store(max_records=store_backend.partitions)
    old, new = store_backend.neighbours(2)
    await complete(store_backend, old)
    await store.start(new, plan(), TTL, restart=False)
    found = await ledger(store_backend)
    assert (found.starts, found.open, found.fates[Fate.EVICTED]) == (2, 1, WHOLE)


async def test_what_is_cancelled_keeps_its_fate_though_it_is_read_later(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.store.cancel(KEY)
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.CANCELLED: ONLY_FIRST}


async def test_a_failed_run_takes_its_unread_work_along(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    failed = worked("second", SECOND, StepState.FAILED)
    await store_backend.queue.finish(claim.lease, [failed], Status.FAILED, "second: broken")
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.FAILED: WHOLE}
    assert FAILURE_TTL > 0


async def test_a_failed_run_that_was_partly_read_is_failed_and_what_was_read_is_used(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.store.read(KEY)
    ended = [worked("second", SECOND, StepState.FAILED)]
    await store_backend.queue.finish(claim.lease, ended, Status.FAILED, "second: broken")
    expected = {Fate.USED_READY: Work(0, 1, 2.0, 1.5, 300), Fate.FAILED: ONLY_SECOND}
    assert await settled(store_backend) == expected
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == expected
    assert (await ledger(store_backend)).hidden == 0, "a failure spares nobody a wait"


async def test_a_step_that_failed_is_of_no_use_though_its_run_is(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    ended = [ENDED[0], worked("second", SECOND, StepState.FAILED)]
    await store_backend.queue.finish(claim.lease, ended, Status.COMPLETED, "")
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {
        Fate.USED_READY: ONLY_FIRST,
        Fate.FAILED: Work(0, 1, 0.25, 0.125),
    }


async def test_work_that_the_next_revision_keeps_waits_for_what_becomes_of_that(
    store_backend: Backend,
) -> None:
    await complete(store_backend)
    # In another order, so that places are not mistaken for names.
    changed = plan("d2", {"second": "other", "first": "f1"})
    await store_backend.store.start(KEY, changed, TTL, restart=False)
    found = await ledger(store_backend)
    assert (found.starts, found.open) == (2, 1)
    assert found.fates[Fate.REPLACED] == ONLY_SECOND
    claim = await store_backend.claim()
    assert set(claim.ended) == {"first"}
    await store_backend.queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    await store_backend.store.read(KEY)
    assert await settled(store_backend, starts=2) == {
        Fate.REPLACED: ONLY_SECOND,
        Fate.USED_READY: WHOLE,
    }


async def test_kept_work_is_carried_from_place_to_place(store_backend: Backend) -> None:
    await complete(store_backend)
    for digest, steps in (
        ("d2", {"other": "o1", "second": "s1", "first": "f1"}),
        ("d3", {"first": "f1", "other": "o2"}),
    ):
        await store_backend.store.start(KEY, plan(digest, steps), TTL, restart=False)
    found = await ledger(store_backend)
    assert found.fates[Fate.REPLACED] == Work(2, 1, 0.25, 0.125)
    await store_backend.store.read(KEY)
    assert (await ledger(store_backend)).fates[Fate.USED_READY] == Work(0, 1, 2.0, 1.5, 300)


async def test_a_step_that_is_committed_again_is_not_worked_on_again(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    for _ in range(2):
        await store_backend.queue.commit(claim.lease, ENDED[:1], [])
    await store_backend.queue.finish(claim.lease, ENDED, Status.COMPLETED, "")
    await store_backend.store.read(KEY)
    assert await settled(store_backend) == {Fate.USED_READY: WHOLE}


async def test_a_restart_replaces_all_of_it(store_backend: Backend) -> None:
    await complete(store_backend)
    await store_backend.store.start(KEY, plan(), TTL, restart=True)
    await store_backend.store.cancel(KEY)
    assert await settled(store_backend, starts=2) == {
        Fate.REPLACED: WHOLE,
        Fate.CANCELLED: Work(1),
    }


async def test_a_namespace_is_told_nothing_of_another(store_backend: Backend) -> None:
    await complete(store_backend)
    assert (await store_backend.store.stats("quiz")).ledger is None
    await store_backend.start(RunKey("quiz", "q"))
    quiz = await ledger(store_backend, "quiz")
    assert (quiz.starts, quiz.open) == (1, 1)
    assert not any(work.runs or work.steps for work in quiz.fates.values())
    assert (await ledger(store_backend)).starts == 2


async def test_a_line_that_an_earlier_version_left_behind_is_settled_by_sweeps(
    store_backend: Backend,
) -> None:
    await complete(store_backend)
    keys = store_backend.keys_of(KEY)
    for name in ("unread", "expiry", "status:completed"):
        await store_backend.redis("ZREM", f"headstart:{{{keys.partition}}}:{name}", "games:game-1")
    await store_backend.redis("UNLINK", keys.record(KEY))
    await store_backend.queue.sweep()
    assert await settled(store_backend) == {Fate.EXPIRED: WHOLE}
