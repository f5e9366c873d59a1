"""Records that somebody else got at: an error for their key alone, and never a loop of workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from headstart_service.domain import FailureReason, Outcome, RunKey, Status
from headstart_service.domain.errors import LeaseLost, RecordDamaged
from tests.contract.backend import FAILURE_TTL, TTL, Backend, done, plan

KEY = RunKey("games", "game-1")
Damage = Callable[[Backend, str], Awaitable[object]]


def about(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    """Damage to the words of the line `about`."""

    async def damage(backend: Backend, record: str) -> None:
        words = (await backend.redis("HGET", record, "about")).split(b" ")
        await backend.redis("HSET", record, "about", b" ".join(change(words)))

    return damage


def word(place: int, value: bytes) -> Damage:
    return about(lambda words: [*words[:place], value, *words[place + 1 :]])


async def _list(backend: Backend, record: str) -> None:
    await backend.redis("UNLINK", record)
    await backend.redis("RPUSH", record, "x")
    await backend.redis("PEXPIRE", record, 60_000)


HEADLESS: dict[str, Damage] = {
    "a string": lambda b, r: b.redis("SET", r, "x", "KEEPTTL"),
    "a list": _list,
    "no head": lambda b, r: b.redis("HDEL", r, "about"),
    "an empty head": lambda b, r: b.redis("HSET", r, "about", ""),
    "a truncated head": about(lambda words: words[:9]),
    "a status of its own": word(0, b"paused"),
    "a number that is none": word(1, b"nan"),
    "a negative number": word(6, b"-1"),
    "a number too large": word(10, b"9" * 400),
    "a number that a double does not hold": word(1, b"9007199254740993"),
    "random bytes": lambda b, r: b.redis("HSET", r, "about", bytes(range(256))),
}
"""What no script accepts."""
TWISTED: dict[str, Damage] = {
    "a pipeline in no alphabet": word(12, b"\xff"),
    "a step without a state": lambda b, r: b.redis("HSET", r, "s:first", ""),
    "a step of an unknown state": lambda b, r: b.redis("HSET", r, "s:first", "X"),
    "a step in no alphabet": lambda b, r: b.redis("HSET", r, b"s:\xff", "C"),
}
"""What only its reader finds out."""
EVERY = HEADLESS | TWISTED


@pytest.fixture(params=HEADLESS)
def headless(request: pytest.FixtureRequest) -> Damage:
    return HEADLESS[request.param]


@pytest.fixture(params=EVERY)
def damage(request: pytest.FixtureRequest) -> Damage:
    return EVERY[request.param]


def record(backend: Backend, key: RunKey = KEY) -> str:
    return backend.keys_of(key).record(key)


async def test_reading_a_damaged_record_is_an_error_that_names_it(
    store_backend: Backend, damage: Damage
):
    backend = store_backend
    await backend.complete(KEY)
    await damage(backend, record(backend))
    for method in (backend.store.read, backend.store.status):
        with pytest.raises(RecordDamaged, match="games/game-1 is damaged"):
            await method(KEY)


async def test_changing_a_headless_record_is_an_error_and_changes_nothing(
    store_backend: Backend, headless: Damage
):
    backend = store_backend
    await backend.start(KEY)
    await headless(backend, record(backend))
    before = await backend.redis("DUMP", record(backend))
    with pytest.raises(RecordDamaged):
        await backend.store.cancel(KEY)
    with pytest.raises(RecordDamaged):
        await backend.start(KEY)
    assert await backend.redis("DUMP", record(backend)) == before


async def test_a_restart_overwrites_a_headless_record(store_backend: Backend, headless: Damage):
    backend = store_backend
    await backend.begin(KEY)
    await headless(backend, record(backend))
    started = await backend.store.start(KEY, plan(), TTL, restart=True)
    assert (started.outcome, started.revision) == (Outcome.STARTED, 1)
    claim = await backend.claim()
    await backend.queue.finish(claim.lease, [done("first"), done("second")], Status.COMPLETED, "")
    assert (await backend.store.read(KEY)).summary.status is Status.COMPLETED
    assert sum((await backend.store.stats("")).counts.values()) == 1


async def test_a_restart_of_a_damaged_record_leaves_nothing_of_it_in_any_set(
    store_backend: Backend,
):
    backend = store_backend
    await backend.complete(KEY)
    await HEADLESS["an empty head"](backend, record(backend))
    store = backend.new_store(max_records=backend.partitions)
    await store.start(KEY, plan(), TTL, restart=True)
    counts = (await store.stats("")).counts
    assert counts == {Status.PENDING: 1}


async def test_a_list_leaves_damaged_records_out_and_its_pages_stay_full(
    store_backend: Backend, damage: Damage, caplog: pytest.LogCaptureFixture
):
    backend = store_backend
    keys = sorted(backend.neighbours(6))
    await backend.complete(*keys)
    unwell = keys[1:4]
    for key in unwell:
        await damage(backend, record(backend, key))
    page = await backend.store.list("games", list(Status), None, 3)
    whole = [key for key in keys if key not in unwell]
    if damage in TWISTED.values() and damage is not TWISTED["a pipeline in no alphabet"]:
        whole = keys  # what a list does not look at
    assert [summary.key for summary in page] == whole[:3]
    assert all(f"{key.namespace}:{key.key}" in caplog.text for key in keys if key not in whole)


async def test_a_list_goes_on_behind_names_without_a_record(store_backend: Backend):
    backend = store_backend
    keys = sorted(backend.neighbours(4))
    await backend.complete(*keys)
    await backend.redis("UNLINK", record(backend, keys[0]))
    page = await backend.store.list("games", list(Status), None, 2)
    assert [summary.key for summary in page] == keys[1:3]


async def test_the_job_of_a_damaged_record_is_dropped_and_comes_back_to_nobody(
    store_backend: Backend, damage: Damage, caplog: pytest.LogCaptureFixture
):
    backend = store_backend
    await backend.start(KEY)
    await damage(backend, record(backend))
    [job] = await backend.jobs()
    assert await backend.queue.claim(job, "w1") is None
    assert "games/game-1 is damaged" in caplog.text
    assert await backend.new_queue(lease=0.001).lost_jobs(job.partition, "w2", 10) == []
    assert await backend.redis("XLEN", backend.keys_of(KEY).jobs) == 0


async def test_a_run_whose_inputs_are_gone_fails_and_its_waiters_are_told(store_backend: Backend):
    backend = store_backend
    await backend.start(KEY)
    await backend.redis("HDEL", record(backend), "inputs")
    [job] = await backend.jobs()
    assert await backend.queue.claim(job, "w1") is None
    summary = (await backend.store.read(KEY)).summary
    assert (summary.status, summary.error) == (Status.FAILED, "its record is damaged")
    assert summary.failure_reason is FailureReason.RECORD_DAMAGED
    assert 0 < await backend.pttl(KEY) <= FAILURE_TTL


async def test_a_record_damaged_during_its_run_holds_no_lease(
    store_backend: Backend, headless: Damage
):
    backend = store_backend
    claim = await backend.begin(KEY)
    await headless(backend, record(backend))
    assert await backend.queue.renew([claim.lease], "w1") == [claim.lease]
    await backend.queue.release(claim.lease)
    with pytest.raises(LeaseLost):
        await backend.queue.commit(claim.lease, [done("first")], [])
    with pytest.raises(LeaseLost):
        await backend.queue.finish(claim.lease, [], Status.COMPLETED, "")


@pytest.mark.promise("A foreign change harms its key only", "every script checks")
async def test_a_damaged_record_harms_no_other(store_backend: Backend, damage: Damage):
    backend = store_backend
    mine, other = backend.neighbours(2)
    await backend.start(mine)
    await backend.start(other)
    await damage(backend, record(backend, mine))
    for job in await backend.jobs():
        claim = await backend.queue.claim(job, "w1")
        assert (claim is None) == (job.key == mine)
        if claim is not None:
            await backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    assert (await backend.store.read(other)).summary.status is Status.COMPLETED


async def test_an_entry_that_is_no_job_is_dropped(
    store_backend: Backend, caplog: pytest.LogCaptureFixture
):
    backend = store_backend
    await backend.queue.prepare_queue()
    jobs = backend.keys_of(KEY).jobs
    await backend.redis("XADD", jobs, "*", "what", "ever")
    await backend.redis("XADD", jobs, "*", "member", b"\xff:\xff")
    await backend.start(KEY)
    assert [job.key for job in await backend.jobs()] == [KEY]
    assert caplog.text.count("not a job of ours is dropped") == 2
    assert (await backend.redis("XPENDING", jobs, "workers"))["pending"] == 1


async def test_a_run_that_names_no_entry_can_be_cancelled(store_backend: Backend):
    backend = store_backend
    await backend.begin(KEY)
    await word(5, b"nowhere")(backend, record(backend))
    assert (await backend.store.cancel(KEY)).cancelled
