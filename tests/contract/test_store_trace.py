"""A run carries its start's trace context while it is live, and nothing of it when nobody traces."""

from __future__ import annotations

import pytest

from headstart_service.domain import Outcome, RunKey, Started, Status
from tests.contract.backend import TTL, Backend, plan

KEY = RunKey("games", "game-1")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _start(backend: Backend, trace: str = "", digest: str = "d1") -> Started:
    return await backend.store.start(KEY, plan(digest), TTL, restart=False, trace=trace)


async def test_every_worker_that_claims_the_run_has_the_context_of_its_start(
    store_backend: Backend,
) -> None:
    await _start(store_backend, TRACE)
    claim = await store_backend.claim()
    assert claim.trace == TRACE
    assert claim.ended == {}
    await store_backend.queue.release(claim.lease)
    assert (await store_backend.claim()).trace == TRACE, "also after it was handed on"
    at_once = store_backend.new_queue(lease=0)
    [lost] = await at_once.lost_jobs(store_backend.keys_of(KEY).partition, "w2", 10)
    reclaimed = await at_once.claim(lost, "w2")
    assert reclaimed is not None
    assert reclaimed.trace == TRACE, "and after its worker was lost"


async def test_who_joins_is_told_the_context_that_the_run_carries(store_backend: Backend) -> None:
    assert (await _start(store_backend, TRACE)).trace == ""
    joined = await _start(store_backend, OTHER)
    assert (joined.outcome, joined.trace) == (Outcome.JOINED, TRACE)
    assert (await _start(store_backend)).trace == "", "who is not traced need not know"
    assert (await store_backend.claim()).trace == TRACE


async def test_who_joins_a_run_that_was_not_traced_is_told_none(store_backend: Backend) -> None:
    await _start(store_backend)
    joined = await _start(store_backend, TRACE)
    assert (joined.outcome, joined.trace) == (Outcome.JOINED, "")
    assert (await store_backend.claim()).trace == ""


async def test_a_start_anew_carries_its_own_context_or_none(store_backend: Backend) -> None:
    await _start(store_backend, TRACE)
    await _start(store_backend, OTHER, "d2")
    jobs = await store_backend.jobs()
    claims = [claim for job in jobs if (claim := await store_backend.queue.claim(job, "w1"))]
    assert [claim.trace for claim in claims] == [OTHER]
    await _start(store_backend, digest="d3")
    assert b"trace" not in await store_backend.record(KEY)


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_nothing_is_left_of_the_context_when_the_run_has_ended(
    store_backend: Backend, end: Status
) -> None:
    await _start(store_backend, TRACE)
    claim = await store_backend.claim()
    assert (await store_backend.record(KEY))[b"trace"] == TRACE.encode()
    if end is Status.CANCELLED:
        await store_backend.store.cancel(KEY)
    else:
        await store_backend.queue.finish(claim.lease, (), end, "")
    assert (await store_backend.store.read(KEY)).summary.status is end
    assert b"trace" not in await store_backend.record(KEY)


async def test_an_api_process_that_knows_no_traces_reads_a_run_that_has_one(
    store_backend: Backend,
) -> None:
    await _start(store_backend, TRACE)
    assert (await store_backend.store.read(KEY)).body == b""
    assert (await store_backend.store.status(KEY)).summary.status is Status.PENDING


async def test_a_repeated_start_returns_the_trace_of_the_one_that_made_the_run(
    store_backend: Backend,
) -> None:
    async def restart(trace: str) -> Started:
        return await store_backend.store.start(
            KEY, plan(), TTL, restart=True, request_id="r1", trace=trace
        )

    assert await restart("first") == Started(Outcome.STARTED, Status.PENDING, 1)
    assert await restart("second") == Started(Outcome.STARTED, Status.PENDING, 1, "first")
    assert await restart("") == Started(Outcome.STARTED, Status.PENDING, 1), "it asked for none"
