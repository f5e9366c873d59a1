from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from headstart_service.domain import Claim, RunKey, Status, StepRecord, StepState
from headstart_service.domain.errors import LeaseLost
from tests.contract.backend import RESULT, Backend, done, plan, running

KEY = RunKey("games", "game-1")


async def test_a_committed_step_can_be_read_at_once(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    assert b"claim" in await store_backend.record(KEY)
    await store_backend.queue.commit(claim.lease, [], [running("first")])
    assert b"claim" not in await store_backend.record(KEY), "a record is small while it runs"
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": StepState.RUNNING, "second": StepState.PENDING}
    assert found.body == b"<first runs>"
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": StepState.COMPLETED, "second": StepState.RUNNING}
    assert sorted([b"<first>", b"<second runs>"]) == sorted(_pieces(found.body))
    assert found.summary.status is Status.IN_PROGRESS


def _pieces(body: bytes) -> list[bytes]:
    return [piece + b">" for piece in body.split(b">")[:-1]]


async def test_finishing_ends_the_run_and_forgets_what_only_a_worker_needs(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.finish(
        claim.lease, [done("first"), done("second")], Status.COMPLETED, ""
    )
    found = await store_backend.store.read(KEY)
    assert found.summary.status is Status.COMPLETED
    assert found.body == RESULT
    assert b"inputs" not in await store_backend.record(KEY)
    assert await store_backend.redis("XLEN", store_backend.keys_of(KEY).jobs) == 0


async def test_results_of_any_bytes_and_size_come_back_unchanged(store_backend: Backend) -> None:
    result = bytes(range(256)) * 800
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first", result)], [])
    assert (await store_backend.store.read(KEY)).body == result
    await store_backend.queue.release(claim.lease)
    claim = await store_backend.claim("w2")
    assert claim.ended["first"].fragment == result


async def test_a_failed_run_has_its_error_and_keeps_what_there_is(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    failed = StepRecord("second", StepState.FAILED, b"<second failed>")
    await store_backend.queue.finish(
        claim.lease, [done("first"), failed], Status.FAILED, "second: кaputt \x00 ;"
    )
    found = await store_backend.store.read(KEY)
    assert found.summary.status is Status.FAILED
    assert found.summary.error == "second: кaputt \x00 ;"
    assert found.states == {"first": StepState.COMPLETED, "second": StepState.FAILED}
    assert sorted(_pieces(found.body)) == [b"<first>", b"<second failed>"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_finishing_twice_is_harmless(store_backend: Backend, status: Status) -> None:
    """The answer to the first may have been lost."""
    claim = await store_backend.begin(KEY)
    await store_backend.queue.finish(claim.lease, [done("first")], status, "why")
    before = store_backend.deployment.dump()
    await store_backend.queue.finish(claim.lease, [done("first")], status, "why")
    assert store_backend.deployment.dump() == before


async def test_committing_twice_is_harmless(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    before = store_backend.deployment.dump()
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    assert store_backend.deployment.dump() == before


async def _cancelled(backend: Backend, claim: Claim) -> None:
    await backend.store.cancel(KEY)


async def _replaced(backend: Backend, claim: Claim) -> None:
    await backend.start(KEY, plan("d2"))


async def _replaced_and_claimed(backend: Backend, claim: Claim) -> None:
    await backend.start(KEY, plan("d2"))
    await backend.claim("w2")


async def _restarted(backend: Backend, claim: Claim) -> None:
    await backend.store.start(KEY, plan(), 60, restart=True)


async def _restarted_and_completed(backend: Backend, claim: Claim) -> None:
    await backend.store.start(KEY, plan(), 60, restart=True)
    again = await backend.claim("w2")
    await backend.queue.finish(again.lease, [done("first", b"new")], Status.COMPLETED, "")


async def _reclaimed(backend: Backend, claim: Claim) -> None:
    [job] = await backend.new_queue(lease=0).lost_jobs(claim.lease.job.partition, "w2", 1)
    assert await backend.queue.claim(job, "w2") is not None


async def _released(backend: Backend, claim: Claim) -> None:
    await backend.queue.release(claim.lease)


async def _released_and_claimed(backend: Backend, claim: Claim) -> None:
    await backend.queue.release(claim.lease)
    await backend.claim("w2")


async def _completed(backend: Backend, claim: Claim) -> None:
    await backend.queue.finish(claim.lease, [done("first", b"final")], Status.COMPLETED, "")


async def _expired(backend: Backend, claim: Claim) -> None:
    await backend.redis("DEL", backend.keys_of(KEY).record(KEY))


Event = Callable[[Backend, Claim], Awaitable[None]]
EVENTS = [
    _cancelled,
    _replaced,
    _replaced_and_claimed,
    _restarted,
    _restarted_and_completed,
    _reclaimed,
    _released,
    _released_and_claimed,
    _completed,
    _expired,
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__.strip("_"))
async def test_a_late_write_of_a_lost_lease_changes_nothing(
    store_backend: Backend, event: Event
) -> None:
    claim = await store_backend.begin(KEY)
    await event(store_backend, claim)
    before = store_backend.deployment.dump()
    lease, late = claim.lease, [done("first", b"late"), done("second", b"late")]
    with pytest.raises(LeaseLost):
        await store_backend.queue.commit(lease, late, [running("second")])
    with pytest.raises(LeaseLost):
        await store_backend.queue.finish(lease, late, Status.FAILED, "late")
    if event is not _completed:
        with pytest.raises(LeaseLost):
            await store_backend.queue.finish(lease, late, Status.COMPLETED, "")
    await store_backend.queue.release(lease)
    assert await store_backend.queue.renew([lease], "w1") == [lease]
    assert store_backend.deployment.dump() == before
