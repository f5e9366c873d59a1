"""Looking on changes nothing; workers show themselves for as long as they said."""

from __future__ import annotations

import pytest

from headstart_service.domain import ItemsChunk, Lack, RunKey, Status, StepState, WorkerState
from headstart_service.domain.errors import RecordDamaged, RunNotFound
from headstart_service.store.keys import PartitionKeys
from tests.contract.backend import RESULT, Backend, done, plan, running
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")


def state(name: str, busy: int = 1) -> WorkerState:
    return WorkerState(
        name=name,
        host="höst",
        version="1.2",
        pipelines=("probe", "noop"),
        slots=4,
        busy=busy,
        started_us=1,
    )


async def test_an_inspection_shows_all_of_a_run_and_its_worker(store_backend: Backend) -> None:
    with pytest.raises(RunNotFound):
        await store_backend.store.inspect(KEY)
    await store_backend.store.start(KEY, plan(), 60, restart=False)
    look = await store_backend.store.inspect(KEY)
    assert (look.worker, look.attempt, look.snapshot.body) == ("", 0, b"")
    claim = await store_backend.claim("w1")
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    look = await store_backend.store.inspect(KEY)
    assert (look.worker, look.attempt) == ("w1", 1)
    assert look.snapshot.states == {"first": StepState.COMPLETED, "second": StepState.RUNNING}
    await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
    look = await store_backend.store.inspect(KEY)
    assert (look.worker, look.snapshot.body) == ("", RESULT)
    assert look.snapshot.summary.status is Status.COMPLETED


async def test_an_inspection_is_no_read(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    keys = store_backend.keys_of(KEY)
    record = await store_backend.record(KEY)
    await store_backend.store.inspect(KEY)
    assert await store_backend.record(KEY) == record
    assert await store_backend.redis("ZCARD", keys.fixed[2]) == 1, "it is still unread"
    await store_backend.store.read(KEY)
    assert await store_backend.redis("ZCARD", keys.fixed[2]) == 0


async def test_an_inspection_of_a_damaged_record_reports_the_damage(store_backend: Backend) -> None:
    await store_backend.begin(KEY)
    await store_backend.redis("HSET", store_backend.keys_of(KEY).record(KEY), "about", "nonsense")
    with pytest.raises(RecordDamaged):
        await store_backend.store.inspect(KEY)


async def test_an_inspection_that_is_limited_leaves_the_largest_fragments_out(
    store_backend: Backend,
) -> None:
    steps = {name: name for name in ("large", "small", "larger", "runs", "waits")}
    await store_backend.start(KEY, plan(steps=steps))
    claim = await store_backend.claim()
    large, larger = b"l" * 50_000, b"L" * 3_000_000
    ended = [done("large", large), done("small"), done("larger", larger)]
    await store_backend.queue.commit(claim.lease, ended, [running("runs")])
    small = b"<small>"
    states = {
        "large": StepState.COMPLETED,
        "small": StepState.COMPLETED,
        "larger": StepState.COMPLETED,
        "runs": StepState.RUNNING,
        "waits": StepState.PENDING,
    }
    for limit, bodies in (
        (0, {large, small, larger, b"<runs runs>"}),
        (60_000, {large, small, b"<runs runs>"}),
        (50_000, {small, b"<runs runs>"}),
        (1, set()),
    ):
        look = await store_backend.store.inspect(KEY, largest=limit)
        assert look.snapshot.states == states, "of each its state is known"
        left = look.snapshot.body
        for body in bodies:
            assert body in left
            left = left.replace(body, b"")
        assert left == b""


async def test_an_inspection_has_the_items_of_a_step_that_runs_unless_it_is_limited(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    chunk = ItemsChunk("first", "basis", 1, b"<item>", b"<so far>")
    await store_backend.queue.keep_items(claim.lease, chunk)
    assert b"<item>" in (await store_backend.store.inspect(KEY)).snapshot.body
    look = await store_backend.store.inspect(KEY, largest=1000)
    assert look.snapshot.body == b"<so far>"


async def test_an_inspection_has_what_a_run_waits_for(store_backend: Backend) -> None:
    await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert (await store_backend.store.inspect(KEY)).snapshot.summary.lacks is Lack.WORKER


async def test_a_claim_has_the_stores_time(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    summary = (await store_backend.store.status(KEY)).summary
    assert summary.started_us <= claim.at_us <= summary.started_us + 10_000_000


async def test_workers_are_shown_until_they_are_silent_or_leave(store_backend: Backend) -> None:
    queue, store = store_backend.queue, store_backend.store
    await queue.heartbeat(state("w2"), 60)
    await queue.heartbeat(state("w1"), 60)
    await queue.heartbeat(state("w1", busy=3), 60)
    await queue.heartbeat(state("brief"), 60)
    assert await store.workers(100) == [state("brief"), state("w1", busy=3), state("w2")]
    assert len(await store.workers(2)) == 2
    await queue.deregister("w2")
    await queue.heartbeat(state("brief"), 0.1)

    async def left() -> bool:
        return await store.workers(100) == [state("w1", busy=3)]

    await wait_until(left)
    roster = PartitionKeys(0).workers
    assert await store_backend.redis("HLEN", roster) == 2
    await queue.heartbeat(state("w1"), 60)
    assert await store_backend.redis("HLEN", roster) == 1, "the silent one is forgotten"


async def test_nothing_of_a_worker_outlives_it(store_backend: Backend) -> None:
    await store_backend.queue.heartbeat(state("w1"), 60)
    await store_backend.queue.heartbeat(state("w2"), 0.2)
    ttl = await store_backend.redis("PTTL", PartitionKeys(0).workers)
    assert 50_000 < ttl <= 60_000, "a beat shortens nobody else's"


async def test_what_is_no_worker_of_ours_is_not_shown(store_backend: Backend) -> None:
    await store_backend.queue.heartbeat(state("w1"), 60)
    roster = PartitionKeys(0).workers
    for number, text in enumerate(("", "x", "99999999999999999 {", '99999999999999999 {"name":1}')):
        await store_backend.redis("HSET", roster, f"odd{number}", text)
    assert [each.name for each in await store_backend.store.workers(100)] == ["w1"]
