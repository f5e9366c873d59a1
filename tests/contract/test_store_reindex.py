"""Indexes that vanish, evicted or deleted, are mended by the records."""

from __future__ import annotations

import pytest

from headstart_service.domain import RunKey, Status
from headstart_service.store.retries import Retries
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.upkeep import Upkeep
from tests.contract.backend import Backend, done

COMPARED = ("expiry", "read", "unread", *(f"status:{status}" for status in Status))


def key(name: str) -> RunKey:
    return RunKey("games", name)


async def populate(backend: Backend) -> list[RunKey]:
    """A run of each status, of ended ones one that was read; gives the keys."""
    await backend.complete(key("read"), key("unread"))
    await backend.store.read(key("read"))
    claim = await backend.begin(key("failed"))
    await backend.queue.finish(claim.lease, [], Status.FAILED, "why")
    await backend.start(key("cancelled"))
    await backend.store.cancel(key("cancelled"))
    await backend.jobs()  # that of the one that was cancelled
    claim = await backend.begin(key("running"))
    await backend.queue.commit(claim.lease, [done("first")], [])
    await backend.start(key("queued"))
    names = ("read", "unread", "failed", "cancelled", "running", "queued")
    return [key(name) for name in names]


async def indexes(backend: Backend) -> dict[str, dict[bytes, float]]:
    """What stands in the sorted sets of all partitions."""
    found = {}
    for keys in backend.all_keys:
        prefix = keys.jobs.removesuffix("jobs")
        for name in COMPARED:
            members = await backend.raw.zrange(prefix + name, 0, -1, withscores=True)
            found[prefix + name] = dict(members)
    return found


async def delete(backend: Backend, *names: str) -> None:
    for keys in backend.all_keys:
        prefix = keys.jobs.removesuffix("jobs")
        for name in names:
            await backend.raw.delete(prefix + name)


@pytest.mark.parametrize(
    "lost",
    [
        *((f"status:{status}",) for status in Status),
        ("expiry",),
        ("read", "unread"),
        ("waiting",),
        ("tickets",),
        tuple(f"status:{status}" for status in Status),
    ],
    ids=lambda lost: lost[0] if len(lost) < 5 else "statuses",
)
async def test_an_index_that_vanishes_is_mended_by_the_next_sweep(
    store_backend: Backend, caplog: pytest.LogCaptureFixture, lost: tuple[str, ...]
) -> None:
    runs = await populate(store_backend)
    before = await indexes(store_backend)
    await delete(store_backend, *lost)
    await store_backend.queue.sweep()
    assert await indexes(store_backend) == before
    assert sum("mended" in line for line in caplog.messages) >= 1
    assert (await store_backend.store.stats("")).counts == {
        **dict.fromkeys((Status.FAILED, Status.CANCELLED), 1),
        Status.PENDING: 1,
        Status.IN_PROGRESS: 1,
        Status.COMPLETED: 2,
    }
    assert {run.key for run in await store_backend.store.list("", list(Status), None, 10)} == {
        *runs
    }
    # What was queued is taken, and what runs is taken over when its worker is lost.
    taken = [await store_backend.queue.claim(job, "w2") for job in await store_backend.jobs("w2")]
    assert [claim.lease.job.key for claim in taken if claim] == [key("queued")]
    partition = store_backend.keys_of(key("running")).partition
    jobs = await store_backend.new_queue(lease=0.001).lost_jobs(partition, "w3", 10)
    assert key("running") in [job.key for job in jobs]


async def test_runs_whose_jobs_vanish_are_computed(store_backend: Backend) -> None:
    await populate(store_backend)
    await delete(store_backend, "jobs")
    await store_backend.queue.prepare_queue()
    await store_backend.queue.sweep()
    jobs = await store_backend.jobs("w2")
    taken = [await store_backend.queue.claim(job, "w2") for job in jobs]
    found = {claim.lease.job.key: claim for claim in taken if claim}
    assert {*found} == {key("running"), key("queued")}
    assert {*found[key("running")].ended} == {"first"}
    assert (await store_backend.record(key("running")))[b"tries"] == b"1"


async def test_a_run_whose_record_vanishes_is_forgotten(store_backend: Backend) -> None:
    for run in await populate(store_backend):
        await store_backend.raw.delete(store_backend.keys_of(run).record(run))
    await delete(store_backend, "status:failed")  # so that something disagrees
    await delete(store_backend, "waiting")
    upkeep = Upkeep(store_backend.scripts, Retries(10), Unwatched())
    for keys in store_backend.all_keys:
        await upkeep.reindex(keys)
    assert not any((await indexes(store_backend)).values())
    assert (await store_backend.store.stats("")).counts == {}


async def test_indexes_that_agree_cost_no_scan_and_those_that_cannot_be_mended_one_a_minute(
    store_backend: Backend,
) -> None:
    runs = await populate(store_backend)
    scans = []

    class Scans(Unwatched):
        def trip(self, command: str, calls: int, seconds: float) -> None:
            if command == "reindex":
                scans.append(calls)

    queue = store_backend.new_queue(observer=Scans())
    for _ in range(3):
        await queue.sweep()
    assert scans == []
    failed = store_backend.keys_of(runs[0]).jobs.replace("jobs", "status:failed")
    for _ in range(3):
        await store_backend.redis("ZADD", failed, 0, "games:ghost")
        await queue.sweep()
    assert len(scans) == len(("records", *Status, "expiry")), "one scan of each"
    assert await store_backend.redis("ZSCORE", failed, "games:ghost") is not None
