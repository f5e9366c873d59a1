"""Requests of a language model in batches: each has one owner, also when workers are lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from headstart_service.domain import FREE, BatchedRequest, BatchOwner
from headstart_service.store.connect import WORKER
from headstart_service.store.message_batches import RedisMessageBatches
from tests.contract.backend import BUDGET, Backend

FIRST, SECOND, OTHER = BatchOwner("1-0", 1), BatchOwner("1-0", 2), BatchOwner("2-0", 1)
_numbers = count()


def asked(digest: str = "d") -> BatchedRequest:
    return BatchedRequest(digest, f"id-{next(_numbers)}")


def kept_by(backend: Backend) -> RedisMessageBatches:
    return RedisMessageBatches(backend.client(WORKER), backend.rules(), budget=BUDGET)


async def handed_in(
    kept: RedisMessageBatches, owner: BatchOwner, batch: str = "b1"
) -> BatchedRequest:
    taken = await kept.take(asked(), owner, create=True)
    assert taken is not None
    assert not taken.batch
    request = replace(taken, batch=batch)
    assert await kept.keep(request, owner, then=owner)
    return request


async def test_a_later_claim_of_the_run_takes_the_batch_over(store_backend: Backend) -> None:
    kept = kept_by(store_backend)
    request = await handed_in(kept, FIRST)
    assert await kept.take(asked(), SECOND, create=True) == request
    # The earlier holder can neither keep nor forget it.
    assert not await kept.keep(request, FIRST, then=FREE)
    assert not await kept.forget(request, FIRST)
    assert await kept.forget(request, SECOND)
    assert await kept.take(asked(), SECOND, create=False) is None


async def test_equal_requests_of_one_claim_are_batches_of_their_own(
    store_backend: Backend,
) -> None:
    kept = kept_by(store_backend)
    one, two = await handed_in(kept, FIRST, "b1"), await handed_in(kept, FIRST, "b2")
    assert one.id != two.id
    taken = [await kept.take(asked(), SECOND, create=True) for _ in range(3)]
    assert taken[:2] == [one, two]
    assert taken[2]
    assert not taken[2].batch


async def test_another_run_of_the_key_takes_the_batch_over(store_backend: Backend) -> None:
    kept = kept_by(store_backend)
    request = await handed_in(kept, FIRST)
    assert await kept.take(asked("another"), OTHER, create=False) is None
    assert await kept.take(asked(), OTHER, create=False) == request
    assert not await kept.keep(request, FIRST, then=FREE)
    assert await kept.keep(request, OTHER, then=FREE)
    assert await kept.take(asked(), FIRST, create=False) == request


async def test_what_was_lost_before_its_batch_was_known_is_handed_in_anew(
    store_backend: Backend,
) -> None:
    kept = kept_by(store_backend)
    lost = await kept.take(asked(), FIRST, create=True)
    again = await kept.take(asked(), SECOND, create=True)
    assert lost
    assert again
    assert again.id != lost.id
    assert not again.batch


async def test_they_have_a_time_to_live_and_a_damaged_one_counts_for_none(
    store_backend: Backend,
) -> None:
    kept = kept_by(store_backend)
    await handed_in(kept, FIRST)
    key = store_backend.all_keys[0].message_batches("d")
    assert 24 * 3600 < await store_backend.raw.ttl(key) <= 48 * 3600
    await store_backend.raw.hset(key, "id-x", "\x00 no line")
    taken = await kept.take(asked(), SECOND, create=True)
    assert taken
    assert taken.batch == "b1"
    assert not await store_backend.raw.hexists(key, "id-x")
