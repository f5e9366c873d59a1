from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import Awaits, Claim, Outcome, RunKey, Status
from headstart_service.domain.errors import CapacityExhausted, StartupError
from headstart_service.store.store_rules import StoreRules
from tests.contract.backend import OFFER, Backend, plan


async def test_of_1200_finished_runs_1000_are_left(store_backend: Backend) -> None:
    keys = [RunKey("games", f"game-{number}") for number in range(1200)]
    for first in range(0, len(keys), 100):
        batch = keys[first : first + 100]
        await store_backend.complete(*batch)
        await asyncio.gather(*(store_backend.store.read(key) for key in batch[::2]))
    stats = await store_backend.store.stats("")
    assert stats.counts == {Status.COMPLETED: 1000}
    records = [key for key in store_backend.deployment.ttls() if ":run:" in key]
    assert len(records) == 1000


async def test_what_was_read_goes_first_and_then_the_oldest(store_backend: Backend) -> None:
    places = 5
    store = store_backend.new_store(max_records=places * store_backend.partitions)
    keys = store_backend.neighbours(places)
    await store_backend.complete(*keys)
    for number in (3, 1):  # the order of reading is not what counts
        await store.read(keys[number])
    gone = []
    for newcomer in store_backend.neighbours(places, name="new"):
        await store.start(newcomer, plan(), 60, restart=False)
        left = await store_backend.kept(keys)
        gone += [key for key in keys if key not in left and key not in gone]
    assert gone == [keys[number] for number in (1, 3, 0, 2, 4)]


async def test_asking_for_the_status_does_not_count_as_reading(store_backend: Backend) -> None:
    store = store_backend.new_store(max_records=2 * store_backend.partitions)
    first, second, newcomer = store_backend.neighbours(3)
    await store_backend.complete(first, second)
    await store.status(second)
    await store.start(newcomer, plan(), 60, restart=False)
    assert await store_backend.kept([first, second]) == [second]


async def test_reading_a_run_before_it_has_ended_does_not_count(store_backend: Backend) -> None:
    store = store_backend.new_store(max_records=2 * store_backend.partitions)
    first, second, newcomer = store_backend.neighbours(3)
    await store_backend.start(second)
    await store.read(second)
    await store_backend.complete(first)
    await store_backend.queue.finish(
        (await _claim_again(store_backend, second)).lease, [], Status.COMPLETED, ""
    )
    await store.start(newcomer, plan(), 60, restart=False)
    assert await store_backend.kept([first, second]) == [second]


async def _claim_again(backend: Backend, key: RunKey) -> Claim:
    """A claim of what `complete` claimed beside its own."""
    at_once = backend.new_queue(lease=0)
    for partition in range(backend.partitions):
        for job in await at_once.lost_jobs(partition, "w1", 10):
            if job.key == key:
                claim = await backend.queue.claim(job, "w1")
                assert claim is not None
                return claim
    raise AssertionError(f"no job of {key}")


async def test_a_run_that_has_not_ended_is_never_evicted(store_backend: Backend) -> None:
    store = store_backend.new_store(max_records=3 * store_backend.partitions)
    waiting, working, ended, newcomer = store_backend.neighbours(4)
    await store_backend.complete(ended)
    await store_backend.begin(working)
    await store_backend.start(waiting)
    await store.start(newcomer, plan(), 60, restart=False)
    kept = await store_backend.kept([waiting, working, ended, newcomer])
    assert kept == [waiting, working, newcomer]


async def test_a_start_among_live_runs_only_is_refused_and_changes_nothing(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(max_records=2 * store_backend.partitions)
    waiting, working, newcomer = store_backend.neighbours(3)
    await store_backend.begin(working)
    await store_backend.start(waiting)
    before = store_backend.deployment.dump()
    with pytest.raises(CapacityExhausted) as refused:
        await store.start(newcomer, plan(), 60, restart=False)
    assert refused.value.retry_after > 0
    assert store_backend.deployment.dump() == before


async def test_a_start_that_could_not_make_enough_room_evicts_nothing(
    store_backend: Backend,
) -> None:
    first, second, ended, newcomer = store_backend.neighbours(4)
    await store_backend.complete(ended)
    await store_backend.start(first)
    await store_backend.start(second)
    smaller = store_backend.new_store(max_records=2 * store_backend.partitions)
    before = store_backend.deployment.dump()
    with pytest.raises(CapacityExhausted):
        await smaller.start(newcomer, plan(), 60, restart=False)
    assert store_backend.deployment.dump() == before


async def test_a_lower_limit_is_reached_with_the_next_start(store_backend: Backend) -> None:
    keys = store_backend.neighbours(6)
    await store_backend.complete(*keys)
    smaller = store_backend.new_store(max_records=3 * store_backend.partitions)
    [newcomer] = store_backend.neighbours(1, name="new")
    await smaller.start(newcomer, plan(), 60, restart=False)
    assert await store_backend.kept(keys) == keys[-2:]


async def test_restarting_what_is_kept_needs_no_room(store_backend: Backend) -> None:
    store = store_backend.new_store(max_records=2 * store_backend.partitions)
    waiting, working = store_backend.neighbours(2)
    await store_backend.begin(working)
    await store_backend.start(waiting)
    assert (await store.start(working, plan("d2"), 60, restart=False)).revision == 2
    assert await store_backend.kept([waiting, working]) == [waiting, working]


@pytest.mark.parametrize(("partitions", "records"), [(1, 1000), (3, 1000), (4, 5), (7, 7)])
def test_the_partitions_shares_make_the_whole(partitions: int, records: int) -> None:
    rules = StoreRules(partitions=partitions, max_records=records, failure_ttl=60)
    shares = [rules.share(records, partition) for partition in range(partitions)]
    assert sum(shares) == records
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_records": 3}, "HEADSTART_MAX_CACHED_RESULTS"),
        ({"max_records": 4, "max_live": 3}, "HEADSTART_MAX_QUEUED"),
        ({"max_records": 4, "namespace_max": 3}, "HEADSTART_NAMESPACE_MAX_RESULTS"),
    ],
)
def test_a_limit_below_the_number_of_partitions_is_the_operators_mistake(
    limits: dict[str, int], name: str
) -> None:
    with pytest.raises(StartupError, match=name):
        StoreRules(partitions=4, failure_ttl=60, **limits)


async def test_starts_are_refused_once_the_first_of_the_queue_has_waited_long_without_any_worker(
    store_backend: Backend,
) -> None:
    store = store_backend.store
    first, second, third = store_backend.neighbours(3)
    await store_backend.start(first)
    waiting = store_backend.keys_of(first).jobs.replace("jobs", "waiting")
    member = f"{first.namespace}:{first.key}"
    await store_backend.redis("ZINCRBY", waiting, -290e6, member)
    await store.start(second, plan(), 60, restart=False)
    await store_backend.redis("ZINCRBY", waiting, -20e6, member)
    with pytest.raises(CapacityExhausted, match="no worker has come for five minutes"):
        await store.start(third, plan(), 60, restart=False)
    assert (await store.start(first, plan(), 60, restart=False)).outcome is Outcome.JOINED
    assert (await store.start(second, plan("d2"), 60, restart=False)).outcome is Outcome.REPLACED
    await store.read(
        first, awaits=Awaits.END
    )  # its place is another now, since somebody waits for it
    await store_backend.queue.offer(store_backend.keys_of(first).partition, "w1", [OFFER])
    assert (await store.start(third, plan(), 60, restart=False)).outcome is Outcome.STARTED
