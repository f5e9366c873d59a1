"""Items of steps that run for each item of a list, and steps that did without a need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart_service.domain import (
    Awaits,
    Claim,
    ItemsChunk,
    KeptItems,
    Offer,
    RunKey,
    Status,
    StepRecord,
    StepState,
)
from headstart_service.domain.errors import LeaseLost
from headstart_service.store.events import subscription
from headstart_service.store.keys import partition_of
from tests.contract.backend import Backend, done, plan, running
from tests.contract.test_store_reports import report

KEY = RunKey("games", "game-1")


def chunk(number: int, basis: str = "b1", items: bytes | None = None) -> ItemsChunk:
    given = f"<items {number}>".encode() if items is None else items
    return ItemsChunk("first", basis, number, given, f"<{number} so far>".encode())


async def items_in(backend: Backend) -> set[bytes]:
    return {field for field in await backend.record(KEY) if field[:2] in (b"i:", b"n:")}


async def handed_on(backend: Backend, claim: Claim) -> Claim:
    await backend.queue.release(claim.lease)
    return await backend.claim("w2")


async def test_items_can_be_read_at_once_and_are_announced(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    async with store_backend.announcements() as heard:
        assert await store_backend.queue.keep_items(claim.lease, chunk(0, items=b""))
        assert await store_backend.queue.keep_items(claim.lease, chunk(1))
        assert await store_backend.queue.keep_items(claim.lease, chunk(2))
        told = [await anext(heard) for _ in range(3)]
    assert {(each.kind, each.steps) for each in told} == {("step", ())}
    found = await store_backend.store.read(KEY)
    assert found.states["first"] is StepState.RUNNING
    assert found.running == {"first": b"<2 so far>"}
    assert b"<items 1>" in found.body
    assert b"<items 2>" in found.body


async def test_a_repeated_write_changes_nothing(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    before = store_backend.deployment.dump()
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    assert store_backend.deployment.dump() == before


async def test_the_next_worker_gets_the_items_and_goes_on_behind_them(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    for number in range(1, 13):
        await store_backend.queue.keep_items(claim.lease, chunk(number))
    second = await handed_on(store_backend, claim)
    whole = b"".join(f"<items {number}>".encode() for number in range(1, 13))
    assert second.items == {"first": KeptItems("b1", 12, whole)}
    assert second.ended == {}
    assert b"<items 3>" in (await store_backend.store.read(KEY)).body, "shown meanwhile too"
    await store_backend.queue.keep_items(second.lease, chunk(13))
    third = await handed_on(store_backend, second)
    assert third.items == {"first": KeptItems("b1", 13, whole + b"<items 13>")}


async def test_items_of_another_basis_replace_those_before(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    for number in (1, 2, 3):
        await store_backend.queue.keep_items(claim.lease, chunk(number))
    await store_backend.queue.keep_items(claim.lease, chunk(1, "b2", b"<new>"))
    second = await handed_on(store_backend, claim)
    assert second.items == {"first": KeptItems("b2", 1, b"<new>")}
    assert await items_in(store_backend) == {b"n:first", b"i:first:1"}


@pytest.mark.parametrize("state", [StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED])
async def test_items_go_when_their_step_has_a_result_of_its_own(
    store_backend: Backend, state: StepState
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    await store_backend.queue.commit(claim.lease, [StepRecord("first", state, b"<end>")], [])
    body = (await store_backend.store.read(KEY)).body
    assert (b"<items 1>" in body) == (state is StepState.SKIPPED), "readable where nothing else is"


async def test_a_cancelled_run_keeps_the_items_that_there_are(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    store = store_backend.store
    async with subscription(store_backend.blocking, store.channels) as heard:
        await store.read(KEY, awaits=Awaits.END)
        await store_backend.queue.keep_items(claim.lease, chunk(1))
        await store.cancel(KEY)
        told = await anext(heard)
    found = await store.read(KEY)
    assert (found.summary.status, found.body) == (Status.CANCELLED, b"<items 1>")
    assert told.result is not None
    assert told.result.body == b"<items 1>", "callers that wait get it with the end"


async def test_only_the_present_holder_writes_items(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    second = await handed_on(store_backend, claim)
    with pytest.raises(LeaseLost):
        await store_backend.queue.keep_items(claim.lease, chunk(1))
    await store_backend.store.cancel(KEY)
    with pytest.raises(LeaseLost):
        await store_backend.queue.keep_items(second.lease, chunk(1))
    assert await items_in(store_backend) == set()


async def test_a_reported_step_takes_no_more_items(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    assert (await report(store_backend, "first")).accepted
    assert not await store_backend.queue.keep_items(claim.lease, chunk(2))
    assert await items_in(store_backend) == set()
    assert (await store_backend.store.read(KEY)).body == b"<first of a caller>"


async def test_the_next_revision_keeps_items_of_a_step_with_the_same_digest(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    await store_backend.start(KEY, plan("d2", {"first": "f1", "second": "s2"}))
    second = await store_backend.claim("w2")
    assert second.items == {"first": KeptItems("b1", 1, b"<items 1>")}
    await store_backend.start(KEY, plan("d3", {"first": "f3", "second": "s2"}))
    third = await store_backend.claim("w3")
    assert third.items == {}


async def test_items_of_another_maker_are_not_handed_over(store_backend: Backend) -> None:
    offer = Offer("probe", "v1", {"first": "model-1"})
    await store_backend.queue.prepare_queue()
    await store_backend.start(KEY)
    [job] = await store_backend.queue.next_jobs(
        partition_of(KEY, store_backend.partitions), "w1", 1, 0
    )
    claim = await store_backend.queue.claim(job, "w1", [offer])
    assert claim is not None
    await store_backend.queue.keep_items(claim.lease, chunk(1))
    await store_backend.queue.release(claim.lease)
    [job] = await store_backend.queue.next_jobs(
        partition_of(KEY, store_backend.partitions), "w2", 1, 0
    )
    other = await store_backend.queue.claim(job, "w2", [replace(offer, makers={"first": "m-2"})])
    assert other is not None
    assert other.items == {}


@pytest.mark.parametrize("degraded", [True, False])
async def test_the_next_revision_keeps_no_step_that_did_without_a_need(
    store_backend: Backend,
    degraded: bool,  # noqa: FBT001
) -> None:
    claim = await store_backend.begin(KEY)
    first = replace(done("first"), degraded=degraded)
    await store_backend.queue.finish(claim.lease, [first, done("second")], Status.COMPLETED, "")
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": StepState.COMPLETED, "second": StepState.COMPLETED}
    await store_backend.start(KEY, plan("d2", {"first": "f1", "second": "s1", "more": "m"}))
    again = await store_backend.claim("w2")
    assert set(again.ended) == ({"second"} if degraded else {"first", "second"})


async def test_a_report_may_lack_a_need_that_the_step_can_do_without_once_that_has_ended(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [], [running("first")])
    assert not (await report(store_backend, "second", needs=("?first",))).accepted
    failed = StepRecord("first", StepState.FAILED, b"<first failed>")
    await store_backend.queue.commit(claim.lease, [failed], [])
    assert not (await report(store_backend, "second", needs=("first",))).accepted
    assert (await report(store_backend, "second", needs=("?first", "?absent"))).accepted
    await store_backend.start(KEY, plan("d2", {"first": "f1", "second": "s1", "more": "m"}))
    assert (await store_backend.claim("w2")).ended == {}
