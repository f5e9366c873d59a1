"""The store remembers its layout, and refuses processes of another before anything happens."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import RunKey
from headstart_service.domain.errors import LayoutMismatch
from headstart_service.store.connect import WORKER
from headstart_service.store.keys import PartitionKeys
from headstart_service.store.layout import Layout, LayoutWatch, StoreLayout, stored_layout
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.repartition import StoreInUse, adopt_empty, repartition
from headstart_service.store.store_rules import StoreRules
from tests.contract.backend import BUDGET, FAILURE_TTL, TTL, Backend, plan
from tests.support.waiting import wait_until

KEY = RunKey("games", "key")
COUNTS = r"(?s)store has {} partitions.*HEADSTART_PARTITIONS={}.*headstart repartition --to {}"


def _other(backend: Backend, more: int = 2) -> RedisStore:
    """The store as a process with so many partitions more uses it."""
    rules = StoreRules(
        partitions=backend.partitions + more, max_records=1000, failure_ttl=FAILURE_TTL
    )
    return RedisStore(backend.client(WORKER), rules, budget=BUDGET, connections=3)


async def test_a_process_with_another_number_of_partitions_changes_and_reads_nothing(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    before = store_backend.deployment.dump()
    other, own = _other(store_backend), store_backend.partitions
    for call in (
        lambda: other.start(KEY, plan(), TTL, restart=True),
        lambda: other.read(KEY),
        lambda: other.cancel(KEY),
        lambda: other.stats(""),
        other.prepare,
        lambda: other.layout.agree_all("api a", 60),
    ):
        with pytest.raises(LayoutMismatch, match=COUNTS.format(own, own + 2, own + 2)):
            await call()
    assert store_backend.deployment.dump() == before
    assert await store_backend.find(KEY)


async def test_another_format_is_refused_and_named(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    layout = Layout(store_backend.partitions, format=3)
    await store_backend.redis("SET", PartitionKeys(0).layout, str(layout))
    with pytest.raises(LayoutMismatch, match="the store's format is 3, this version's 4"):
        await StoreLayout(store_backend.client(WORKER), store_backend.partitions).agree_all("", 0)


async def test_a_store_that_was_emptied_gets_its_layout_anew(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    other = _other(store_backend)
    with pytest.raises(LayoutMismatch):
        await other.ping()
    store_backend.deployment.wipe()
    # One that differed does not take the store from those that were served by it.
    with pytest.raises(LayoutMismatch, match="emptied"):
        await other.ping()
    await asyncio.gather(*(store_backend.start(RunKey("games", f"{i}")) for i in range(20)))
    with pytest.raises(LayoutMismatch, match="repartition"):
        await other.ping()


async def test_what_is_no_layout_is_written_anew(store_backend: Backend) -> None:
    for partition in range(store_backend.partitions):
        await store_backend.redis("SADD", PartitionKeys(partition).layout, "damaged")
    await store_backend.start(KEY)
    assert await store_backend.find(KEY)


async def _nobody(layout: StoreLayout) -> bool:
    return not await layout.live()


async def test_a_live_process_keeps_its_store_from_being_moved(store_backend: Backend) -> None:
    client, own = store_backend.client(WORKER), store_backend.partitions
    layout = StoreLayout(client, own)
    await layout.agree_all("api a-1", 60)
    await layout.agree_all("worker b-2", 60)
    assert await layout.live() == ["api a-1", "worker b-2"]
    with pytest.raises(StoreInUse, match="2 processes use the store: api a-1, worker b-2"):
        await repartition(client, own + 1, lambda _: None)
    await adopt_empty(client, Layout(own + 1))
    assert await stored_layout(client) == str(Layout(own))
    await layout.withdraw("api a-1")
    await layout.withdraw("worker b-2")
    await layout.agree_all("killed c-3", 0.001)
    await wait_until(lambda: _nobody(layout))
    await repartition(client, own + 1, lambda _: None)
    with pytest.raises(LayoutMismatch):
        await layout.agree_all("worker b-2", 60)
    assert await layout.live() == []
    store_backend.deployment.wipe()


async def test_a_process_that_was_not_live_for_a_while_forgets_what_it_knew(
    store_backend: Backend,
) -> None:
    """A suspended one compares the same layout again after a move there and back."""
    client, own = store_backend.client(WORKER), store_backend.partitions
    layout, seen = StoreLayout(client, own), list[str]()
    watch = LayoutWatch(
        layout,
        "api a-1",
        every=0.01,
        adopt=lambda: adopt_empty(client, layout.own),
        differs=lambda: seen.append("differs"),
        agrees=lambda: seen.append("agrees"),
    )
    async with watch.running():
        await watch.agreed()
        await wait_until(lambda: seen == ["differs", "agrees"])
        await layout.agree_all("worker b-2", 60)
        assert await layout.agree_all("api a-1", 60)
        assert seen == ["differs", "agrees"], "it was live"
        await layout.withdraw("api a-1")
        await wait_until(lambda: seen == ["differs", "agrees"] * 2)
        assert not watch.problem


async def test_an_empty_store_takes_the_layout_of_its_next_process(store_backend: Backend) -> None:
    client, own = store_backend.client(WORKER), store_backend.partitions
    await store_backend.start(KEY)
    await adopt_empty(client, Layout(own + 2))
    assert await stored_layout(client) == str(Layout(own)), "a run is kept"
    await store_backend.store.cancel(KEY)
    expiry = store_backend.keys_of(KEY).expiry
    await store_backend.redis("ZADD", expiry, 1, "games:key")
    # What has expired counts as gone, though nobody has swept it.
    await asyncio.gather(*(adopt_empty(client, Layout(own + 2)) for _ in range(3)))
    other = _other(store_backend)
    await other.start(KEY, plan(), TTL, restart=False)
    ledger = (await other.stats("")).ledger
    assert ledger is not None
    assert ledger.starts == 2
    store_backend.deployment.wipe()
