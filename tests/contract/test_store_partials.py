"""What steps give before they end: kept in order, once, for the run's present holder alone."""

from __future__ import annotations

import asyncio
import random

import pytest

from headstart_service.domain import (
    Claim,
    Cursor,
    EventKind,
    PartialForm,
    PartialPiece,
    PartialWrite,
    RunKey,
    Status,
)
from headstart_service.domain.errors import LeaseLost, RunNotFound
from headstart_service.store.events import subscription
from tests.contract.backend import Backend, Repeating, done

KEY = RunKey("games", "game-1")
LONG = "söme wörds 🌊 ".encode() * 700


def write(data: bytes, offset: int = 0, trial: int = 1, step: str = "first") -> PartialWrite:
    return PartialWrite(step, PartialForm.TEXT, trial, offset, data)


async def pieces(backend: Backend, **cursors: Cursor) -> dict[str, PartialPiece]:
    found = await backend.store.read_partials(KEY, cursors, follow=False)
    return {piece.step: piece for piece in found.pieces}


async def append(backend: Backend, claim: Claim, *parts: bytes, trial: int = 1) -> None:
    kept = 0
    for part in parts:
        kept = await backend.queue.append(claim.lease, write(part, kept, trial))


async def test_what_a_step_gives_is_read_whole_and_behind_any_cursor(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    assert await pieces(store_backend) == {}
    at, parts = 0, []
    chance = random.Random(7)  # no secret
    while at < len(LONG):
        size = chance.choice((1, 5, 4095, 4096, 4097))
        parts.append(LONG[at : at + size])
        at += size
    await append(store_backend, claim, *parts)
    whole = (await pieces(store_backend))["first"]
    assert (whole.data, whole.offset, whole.length) == (LONG, 0, len(LONG))
    for offset in (1, 4095, 4096, 4097, 8192, len(LONG) - 1):
        rest = await pieces(store_backend, first=Cursor(whole.generation, offset))
        assert rest["first"].data == LONG[offset:]
    assert await pieces(store_backend, first=Cursor(whole.generation, whole.end)) == {}
    found = await store_backend.store.read_partials(KEY, {}, follow=False, tail=5000)
    assert [piece.data for piece in found.pieces] == [LONG[-5000:]]


async def test_more_than_one_call_reads_is_whole_too(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    megabyte = bytes(range(256)) * 4096
    await append(store_backend, claim, megabyte, megabyte, megabyte[:-1])
    await store_backend.queue.append(claim.lease, write(b"beside", step="second"))
    found = await pieces(store_backend)
    assert found["first"].data == megabyte + megabyte + megabyte[:-1]
    assert found["second"].data == b"beside"


async def test_a_repeated_or_early_write_changes_nothing(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    queue = store_backend.new_queue(client=Repeating(store_backend.raw, 3))  # type: ignore[arg-type]
    try:
        assert await queue.append(claim.lease, write(b"one ")) == 4
        assert await queue.append(claim.lease, write(b"two", 4)) == 7
        assert await queue.append(claim.lease, write(b"lost", 99)) == 7, "what is kept is returned"
    finally:
        await queue.aclose()
    assert (await pieces(store_backend))["first"].data == b"one two"


async def test_a_new_try_or_worker_begins_anew(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await append(store_backend, claim, LONG)
    first = (await pieces(store_backend))["first"]
    await append(store_backend, claim, b"again", trial=2)
    second = (await pieces(store_backend, first=Cursor(first.generation, first.end)))["first"]
    assert (second.data, second.offset) == (b"again", 0)
    assert second.generation > first.generation
    with pytest.raises(LeaseLost):
        await append(store_backend, claim, b"late", trial=1)
    await store_backend.queue.release(claim.lease)
    with pytest.raises(LeaseLost):
        await append(store_backend, claim, b"late", trial=3)
    claim = await store_backend.claim("w2")
    await append(store_backend, claim, b"", trial=1)
    third = (await pieces(store_backend, first=Cursor(second.generation, 3)))["first"]
    assert (third.data, third.offset, third.length) == (b"", 0, 0)
    assert third.generation > second.generation
    fields = await store_backend.redis("HLEN", f"{_partial(store_backend)}")
    assert fields == 1, "the bytes of before are gone"


def _partial(backend: Backend) -> str:
    return backend.keys_of(KEY).named("partial:games:game-1")


async def test_only_processes_that_follow_a_run_receive_what_it_gives(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    store = store_backend.store
    async with subscription(store_backend.blocking, store.channels) as heard:
        await store.read(KEY)
        await append(store_backend, claim, b"nobody ")
        await store.read_partials(KEY, {}, follow=True)
        await store_backend.queue.append(claim.lease, write("wörd".encode(), 7))
        await store_backend.queue.append(claim.lease, write(b"x" * 20_000, 12))
        await store_backend.queue.commit(claim.lease, [done("first")], [])
        async with asyncio.timeout(10):
            found = [await anext(heard) for _ in range(3)]
    small, large, step = found
    assert [each.kind for each in found] == [EventKind.PARTIAL, EventKind.PARTIAL, EventKind.STEP]
    assert small.piece is not None
    assert large.piece is not None
    assert (small.key, small.run) == (KEY, claim.lease.job.run)
    assert (small.piece.data, small.piece.offset, small.piece.end) == ("wörd".encode(), 7, 12)
    assert small.piece.whole
    assert (large.piece.data, large.piece.length) == (b"", 20_012), "so its receiver reads"
    assert not large.piece.whole
    assert step.steps == ("first",)


async def test_partial_results_live_and_go_with_their_run(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await append(store_backend, claim, b"words")
    await store_backend.queue.finish(
        claim.lease, [done("first"), done("second")], Status.COMPLETED, ""
    )
    left = await store_backend.redis("PTTL", _partial(store_backend)) / 1000
    assert abs(left - await store_backend.pttl(KEY)) < 1
    assert (await pieces(store_backend))["first"].data == b"words", "also behind its end"
    await store_backend.store.delete(KEY)
    assert await store_backend.redis("EXISTS", _partial(store_backend)) == 0
    with pytest.raises(RunNotFound):
        await pieces(store_backend)
