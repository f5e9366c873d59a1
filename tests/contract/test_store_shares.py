"""Limits beside the number of records: runs that have not ended, and a namespace's share."""

from __future__ import annotations

import pytest

from headstart_service.domain import Outcome, RunKey, Status
from headstart_service.domain.errors import CapacityExhausted
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import Backend, plan


async def start(store: RedisStore, *keys: RunKey, restart: bool = False) -> None:
    for key in keys:
        await store.start(key, plan(), 60, restart=restart)


async def refusal(backend: Backend, store: RedisStore, key: RunKey, **how: bool) -> str:
    """What is said of a start that is refused and changes nothing."""
    before = backend.deployment.dump()
    with pytest.raises(CapacityExhausted) as refused:
        await start(store, key, **how)
    assert backend.deployment.dump() == before
    return str(refused.value)


async def test_a_full_queue_refuses_though_ended_runs_could_make_room(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(max_live=2 * store_backend.partitions)
    ended, working, waiting, newcomer = store_backend.neighbours(4)
    await store_backend.complete(ended)
    await store_backend.begin(working)
    await start(store, waiting)
    assert "queue is full" in await refusal(store_backend, store, newcomer)


async def test_a_full_queue_refuses_to_restart_what_has_ended_and_joins_and_reuses(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(max_live=1 * store_backend.partitions)
    ended, waiting = store_backend.neighbours(2)
    await store_backend.complete(ended)
    await start(store, waiting)
    assert "queue is full" in await refusal(store_backend, store, ended, restart=True)
    for key, outcome in ((ended, Outcome.REUSED), (waiting, Outcome.JOINED)):
        assert (await store.start(key, plan(), 60, restart=False)).outcome is outcome
    replaced = await store.start(waiting, plan("d2"), 60, restart=False)
    assert replaced.outcome is Outcome.REPLACED


async def test_a_run_that_ends_makes_room_in_the_queue(store_backend: Backend) -> None:
    store = store_backend.new_store(max_live=1 * store_backend.partitions)
    first, second = store_backend.neighbours(2)
    await start(store, first)
    await refusal(store_backend, store, second)
    await store.cancel(first)
    await start(store, second)


async def test_the_delay_of_a_refusal_grows_with_the_backlog(store_backend: Backend) -> None:
    delays = []
    for backlog in (2, 8, 20):
        store = store_backend.new_store(max_live=backlog * store_backend.partitions)
        *keys, newcomer = store_backend.neighbours(backlog + 1)
        await start(store, *keys)
        with pytest.raises(CapacityExhausted) as refused:
            await start(store, newcomer)
        delays.append(refused.value.retry_after)
    assert 0 < delays[0] < delays[1] < delays[2] <= 60


@pytest.mark.parametrize(
    ("namespace", "before", "behind"),
    [("games", "game", "games2"), ("a:b", "a", "a:b:"), ("a", "A", "a:b"), ("a:", ":", "a")],
)
async def test_a_full_namespace_evicts_its_own_and_nobody_elses(
    store_backend: Backend, namespace: str, before: str, behind: str
) -> None:
    store = store_backend.new_store(namespace_max=3 * store_backend.partitions)
    others = store_backend.neighbours(3, namespace=before)
    others += store_backend.neighbours(3, namespace=behind)
    mine = store_backend.neighbours(3, namespace=namespace)
    await store_backend.complete(*others, *mine)
    for key in (*others, mine[1]):
        await store.read(key)
    gone = []
    for newcomer in store_backend.neighbours(3, name="new", namespace=namespace):
        await start(store, newcomer)
        left = await store_backend.kept(mine)
        gone += [key for key in mine if key not in left and key not in gone]
    assert gone == [mine[1], mine[0], mine[2]]
    assert await store_backend.kept(others) == others


async def test_a_namespace_of_live_runs_only_is_refused_and_others_are_not(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(namespace_max=2 * store_backend.partitions)
    working, waiting, newcomer = store_backend.neighbours(3)
    [other] = store_backend.neighbours(1, namespace="quiz")
    await store_backend.complete(other)
    await store_backend.begin(working)
    await start(store, waiting)
    assert "namespace games" in await refusal(store_backend, store, newcomer)
    assert await store_backend.kept([working, waiting, other]) == [working, waiting, other]
    [another] = store_backend.neighbours(1, name="new", namespace="quiz")
    await start(store, another)


async def test_failed_and_cancelled_runs_of_a_full_namespace_go_in_their_turn(
    store_backend: Backend,
) -> None:
    store = store_backend.new_store(namespace_max=3 * store_backend.partitions)
    cancelled, failed, completed = keys = store_backend.neighbours(3)
    await start(store, cancelled)
    await store.cancel(cancelled)
    await store_backend.jobs()  # of the cancelled run: nobody claims it
    claim = await store_backend.begin(failed)
    await store_backend.queue.finish(claim.lease, [], Status.FAILED, "why")
    await store_backend.complete(completed)
    for number, newcomer in enumerate(store_backend.neighbours(3, name="new")):
        await start(store, newcomer)
        assert await store_backend.kept(keys) == keys[number + 1 :]


async def test_one_place_that_the_namespace_makes_is_enough_for_all(
    store_backend: Backend,
) -> None:
    """The limit of all records must not evict another run for the same start."""
    store = store_backend.new_store(
        max_records=3 * store_backend.partitions, namespace_max=2 * store_backend.partitions
    )
    [other] = store_backend.neighbours(1, namespace="quiz")
    mine = store_backend.neighbours(2)
    await store_backend.complete(other, *mine)
    [newcomer] = store_backend.neighbours(1, name="new")
    await start(store, newcomer)
    kept = await store_backend.kept([other, *mine, newcomer])
    assert kept == [other, mine[1], newcomer]


async def test_a_namespaces_limit_holds_among_many_more_than_are_looked_at(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(250)
    await store_backend.complete(*keys)
    store = store_backend.new_store(namespace_max=200 * store_backend.partitions)
    newcomers = store_backend.neighbours(5, name="new")
    await start(store, *newcomers)
    kept = await store_backend.kept([*keys, *newcomers])
    assert len(kept) == 200
    assert kept[-5:] == newcomers


async def test_no_part_of_a_large_namespace_stays_for_ever(store_backend: Backend) -> None:
    keys = store_backend.neighbours(250)
    await store_backend.complete(*keys)
    store = store_backend.new_store(namespace_max=250 * store_backend.partitions)
    await start(store, *store_backend.neighbours(60, name="new"))
    kept = set(await store_backend.kept(keys))
    by_name = sorted(keys)
    parts = [by_name[:80], by_name[80:170], by_name[170:]]
    assert all(any(key not in kept for key in part) for part in parts)


async def test_without_a_limit_a_namespace_may_have_all(store_backend: Backend) -> None:
    store = store_backend.new_store(max_records=5 * store_backend.partitions)
    keys = store_backend.neighbours(5)
    await start(store, *keys)
    assert await store_backend.kept(keys) == keys
