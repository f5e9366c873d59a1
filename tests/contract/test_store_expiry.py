from __future__ import annotations

import time

import pytest

from headstart_service.domain import Outcome, RunKey, Started, Status, StepState
from headstart_service.domain.errors import RunNotFound
from tests.contract.backend import FAILURE_TTL, Backend, done, plan, running
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")
SOON = 0.15


async def test_a_result_expires_after_its_ttl(store_backend: Backend) -> None:
    await store_backend.complete(KEY, ttl=123)
    assert 120 < await store_backend.pttl(KEY) <= 123.001
    found = await store_backend.store.read(KEY)
    assert 120 < found.lives_for <= 123
    assert found.summary.expires_us == found.summary.completed_us + 123_000_000


async def test_the_ttl_counts_from_the_end_and_not_from_the_start(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY, ttl=60)
    began = time.monotonic()
    await wait_until(lambda: time.monotonic() - began > SOON)
    ended = time.monotonic()
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    left = await store_backend.pttl(KEY)
    assert left > 60 - (time.monotonic() - ended) - SOON / 2, "as if it had begun now"
    assert (await store_backend.store.read(KEY)).body == b"<first>"


async def test_a_run_without_a_worker_is_kept_for_half_an_hour(store_backend: Backend) -> None:
    await store_backend.start(KEY, ttl=10)
    assert 1790 < await store_backend.pttl(KEY) <= 1800.001


async def test_a_failure_lives_a_minute_however_long_its_result_would_have(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY, ttl=9999)
    await store_backend.queue.finish(claim.lease, [], Status.FAILED, "first: broken")
    assert FAILURE_TTL - 5 < await store_backend.pttl(KEY) <= FAILURE_TTL + 0.001


async def test_a_cancelled_run_lives_a_minute(store_backend: Backend) -> None:
    await store_backend.start(KEY, ttl=9999)
    await store_backend.store.cancel(KEY)
    assert FAILURE_TTL - 5 < await store_backend.pttl(KEY) <= FAILURE_TTL + 0.001


async def test_a_run_that_failed_has_no_step_left_running(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [], [running("first")])
    await store_backend.queue.finish(claim.lease, [], Status.FAILED, "internal error 1234")
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": StepState.PENDING, "second": StepState.PENDING}
    assert found.body == b""


async def test_a_short_ttl_stays_short_through_a_join_and_renewals(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY, ttl=120)
    await store_backend.start(KEY, ttl=100)  # joins, and wants less
    assert await store_backend.queue.renew([claim.lease], "w1") == []
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    assert 1790 < await store_backend.pttl(KEY) <= 1800.001
    assert await store_backend.queue.renew([claim.lease], "w1") == []
    await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
    assert 110 < await store_backend.pttl(KEY) <= 120.001


async def test_a_join_that_wants_more_makes_the_ttl_longer_and_a_release_keeps_it(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY, ttl=100)
    await store_backend.start(KEY, ttl=240)
    await store_backend.queue.release(claim.lease)
    assert 1790 < await store_backend.pttl(KEY) <= 1800.001
    claim = await store_backend.claim("w2")
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    assert 230 < await store_backend.pttl(KEY) <= 240.001


async def test_what_has_expired_is_not_found(store_backend: Backend) -> None:
    await store_backend.complete(KEY, ttl=SOON)
    await wait_until(lambda: _is_gone(store_backend))
    with pytest.raises(RunNotFound):
        await store_backend.store.read(KEY)
    with pytest.raises(RunNotFound):
        await store_backend.store.cancel(KEY)
    assert await store_backend.store.list("", list(Status), None, 10) == []
    assert (await store_backend.store.stats("")).counts == {}


async def _is_gone(backend: Backend) -> bool:
    return await backend.find(KEY) is None


async def test_what_has_expired_is_started_as_if_it_had_never_been(store_backend: Backend) -> None:
    await store_backend.complete(KEY, ttl=SOON)
    await wait_until(lambda: _is_gone(store_backend))
    started = await store_backend.store.start(KEY, plan("d2"), 60, restart=False)
    assert started == Started(Outcome.STARTED, Status.PENDING, 1)
    assert (await store_backend.store.read(KEY)).body == b""


async def test_expiry_leaves_no_trace(store_backend: Backend) -> None:
    keys = store_backend.neighbours(3)
    await store_backend.complete(*keys, ttl=SOON)
    await store_backend.store.read(keys[0])
    claim = await store_backend.begin(KEY, ttl=SOON)
    await _expire_now(store_backend, KEY)
    await wait_until(lambda: _none_found(store_backend, [*keys, KEY]))
    await store_backend.queue.sweep()
    assert await store_backend.queue.renew([claim.lease], "w1") == [claim.lease]
    [job] = await store_backend.new_queue(lease=0).lost_jobs(claim.lease.job.partition, "w2", 10)
    assert await store_backend.queue.claim(job, "w2") is None
    lasting = (":jobs", ":ledger", ":layout", ":waiting:served:1")  # the last for ten minutes
    with_members = [k for k in store_backend.deployment.ttls() if not k.endswith(lasting)]
    assert with_members == []


async def _expire_now(backend: Backend, key: RunKey) -> None:
    """Make a live record's half hour pass."""
    keys = backend.keys_of(key)
    await backend.redis("PEXPIRE", keys.record(key), 1)
    await backend.redis("ZADD", keys.fixed[1], 1, f"{key.namespace}:{key.key}")


async def _none_found(backend: Backend, keys: list[RunKey]) -> bool:
    return await backend.kept(keys) == []


async def test_a_job_whose_record_expired_is_dropped(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await _expire_now(store_backend, KEY)
    await wait_until(lambda: _is_gone(store_backend))
    [job] = await store_backend.jobs()
    assert await store_backend.queue.claim(job, "w1") is None
    assert (await store_backend.store.stats("")).queued_jobs == 0
    assert await store_backend.redis("XLEN", store_backend.keys_of(KEY).jobs) == 0


@pytest.mark.parametrize("ask", ["list", "stats"])
async def test_what_has_just_expired_is_neither_listed_nor_counted_however_much_it_is(
    store_backend: Backend, ask: str
) -> None:
    [survivor] = store_backend.neighbours(1, name="survivor")
    await store_backend.complete(survivor)
    keys = store_backend.keys_of(survivor)
    ghosts = [f"games:a-{number}" for number in range(2500)]
    await store_backend.redis("ZADD", keys.fixed[1], *_pairs(1, ghosts))
    await store_backend.redis("ZADD", keys.fixed[6], *_pairs(0, ghosts))
    if ask == "list":
        listed = await store_backend.store.list("", list(Status), None, 5)
        assert [summary.key for summary in listed] == [survivor]
    else:
        assert (await store_backend.store.stats("")).counts == {Status.COMPLETED: 1}


def _pairs(score: int, members: list[str]) -> list[object]:
    return [part for member in members for part in (score, member)]
