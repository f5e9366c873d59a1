"""Results that announcements of a run's end carry: who gets them, and for how long they are kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Announcement, EventKind, Snapshot, Status
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, KEY, PENDING, Api, snapshot_of

LIVE = dict.fromkeys(("one", "two", "three"), PENDING)
ENDED = dict.fromkeys(("one", "two", "three"), COMPLETED)


def timed(snapshot: Snapshot, read_at: float, lives_for: float) -> Snapshot:
    """The run as it is read at this second of the store's clock."""
    expires_us = round((read_at + lives_for) * 1e6)
    return replace(
        snapshot, summary=replace(snapshot.summary, expires_us=expires_us), lives_for=lives_for
    )


async def announce_end(api: Api, result: Snapshot, kind: EventKind = EventKind.ENDED) -> None:
    api.wire.send(Announcement(kind, KEY, result.run, result=result))
    await wait_until(lambda: api.wire.delivered)
    await api.settled()


def status_of(data: bytes) -> str:
    return pb.PrecomputeStatus.Name(pb.GetResultsResponse.FromString(data).status)


async def test_a_carried_result_ends_the_wait_and_is_kept_without_another_read(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert waiter.done()
    assert api.store.reads == 1
    assert await api.get() == await waiter
    assert api.store.reads == 1, "from the near-cache"


async def test_a_cancelled_run_is_kept_as_its_announcement_carries_it(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    result = snapshot_of(LIVE, Status.CANCELLED)
    await announce_end(api, result, EventKind.CANCELLED)
    assert status_of(await waiter) == "PRECOMPUTE_STATUS_CANCELLED"
    assert await api.get() == await waiter
    assert api.store.reads == 1


async def test_the_late_end_of_a_replaced_run_answers_no_caller_that_read_its_successor(
    api: Api,
) -> None:
    api.store.now(revision=2, run="run-2")
    waiter = api.get()
    await api.parked()
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert not waiter.done()
    assert api.reader.ready(KEY) is None
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED, 2))
    assert pb.GetResultsResponse.FromString(await waiter).revision == 2


async def test_the_late_end_of_a_run_answers_no_caller_that_came_after_a_read_of_its_successor(
    api: Api,
) -> None:
    earlier = api.get()
    await api.parked()
    api.store.now(revision=2, run="run-2")  # its start is not announced yet
    assert pb.GetResultsResponse.FromString(await api.get(wait=0.0)).revision == 2
    later = api.get()
    await api.parked(2)
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert not later.done()
    assert api.reader.ready(KEY) is None, "it is not kept either"
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED, 2))
    for waiter in (earlier, later):
        assert pb.GetResultsResponse.FromString(await waiter).revision == 2


async def test_the_late_end_of_a_run_that_was_restarted_here_answers_only_earlier_callers(
    api: Api,
) -> None:
    earlier = api.get()
    await api.parked()
    api.store.now(revision=2, run="run-2")
    api.reader.outdate(KEY)
    api.store.gate.clear()
    later = api.get()
    await wait_until(lambda: api.store.reads == 2)
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert earlier.done()
    assert not later.done()
    assert api.reader.ready(KEY) is None
    api.store.gate.set()
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED, 2))
    assert pb.GetResultsResponse.FromString(await later).revision == 2


async def test_the_late_end_of_a_run_that_was_restarted_here_is_not_kept(api: Api) -> None:
    waiter = api.get()
    await api.parked()
    api.reader.outdate(KEY)
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert waiter.done()
    assert api.reader.ready(KEY) is None


async def test_an_end_that_no_caller_waits_for_any_more_is_not_kept(api: Api) -> None:
    await api.get(wait=0.01)
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    assert api.reader.ready(KEY) is None


async def test_an_end_that_arrives_during_the_first_read_answers_it(api: Api) -> None:
    api.store.gate.clear()
    waiter = api.get()
    await wait_until(lambda: api.store.reads == 1)
    await announce_end(api, snapshot_of(ENDED, Status.COMPLETED))
    api.store.gate.set()
    await waiter
    assert api.store.reads == 1


@pytest.mark.parametrize(("late", "kept"), [(0.0, True), (0.4, False)])
async def test_a_result_is_kept_until_it_expires_however_late_its_announcement_arrives(
    api: Api, late: float, *, kept: bool
) -> None:
    api.store.snapshot = timed(snapshot_of(LIVE), 1000.0, 600.0)
    waiter = api.get()
    await api.parked()
    await asyncio.sleep(late)
    await announce_end(api, timed(snapshot_of(ENDED, Status.COMPLETED), 1000.0, 0.3))
    await waiter
    assert (api.reader.ready(KEY) is not None) is kept
    await asyncio.sleep(0.3)
    assert api.reader.ready(KEY) is None
