"""Pages that look: few, never waited for, and only as long as they may."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from headstart_service.dashboard.access import View
from headstart_service.dashboard.event_streams import Streams
from headstart_service.domain.errors import CapacityExhausted, PermissionDenied, Unauthenticated


class Snapshots:
    """Counts how often a snapshot is made."""

    def __init__(self) -> None:
        self.taken: list[View] = []

    def history(self, view: View) -> list[dict[str, object]]:
        return [{"at": 1}]

    async def take(self, view: View) -> dict[str, object]:
        self.taken.append(view)
        return {"number": len(self.taken)}


ALL, SHOP = View(None, whole=True), View(frozenset({"shop"}), whole=False)


def streams(limit: int = 3) -> tuple[Streams, Snapshots]:
    snapshots = Snapshots()
    return Streams(snapshots, limit), snapshots  # type: ignore[arg-type]


def allowed() -> None:
    pass


async def events(stream) -> list[str]:
    """What waits to be sent."""
    waiting: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            async for event in stream.events():
                waiting.append(event.decode())  # noqa: PERF401  # the end cancels it
    return waiting


async def test_all_who_see_the_same_share_one_snapshot() -> None:
    opened, snapshots = streams()
    first, second, third = (
        opened.open(ALL, allowed),
        opened.open(ALL, allowed),
        opened.open(SHOP, allowed),
    )
    await opened.publish(fresh_only=True)
    await opened.publish(fresh_only=True)
    assert sorted(map(str, snapshots.taken)) == sorted(map(str, [ALL, SHOP]))
    await opened.publish(fresh_only=False)
    one, other = await events(first), await events(second)
    assert one == other
    assert len(one) == 2
    assert '"history":[{"at":1}]' in one[0]
    assert "history" not in one[1]
    assert len(await events(third)) == 2


async def test_there_are_so_many_and_no_more() -> None:
    opened, _ = streams(2)
    first = opened.open(ALL, allowed)
    opened.open(ALL, allowed)
    with pytest.raises(CapacityExhausted, match="2 pages"):
        opened.open(ALL, allowed)
    opened.close(first)
    opened.open(ALL, allowed)


async def test_who_takes_nothing_is_dropped_and_keeps_nobody_waiting() -> None:
    opened, _ = streams()
    slow = opened.open(ALL, allowed)
    for _ in range(6):
        await opened.publish(fresh_only=False)
    assert not opened.watched
    assert await events(slow) == []


@pytest.mark.promise("Withdrawal closes the live page", "checked per event")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthenticated("the token is not one that this server accepts"), 401),
        (PermissionDenied("namespace", "the token 'a' lacks read in 'shop'", "read"), 403),
    ],
)
async def test_a_token_that_is_withdrawn_ends_its_page(error: Exception, code: int) -> None:
    opened, _ = streams()
    may = [True]

    def check() -> None:
        if not may[0]:
            raise error

    stream = opened.open(ALL, check)
    await opened.publish(fresh_only=False)
    may[0] = False
    await opened.publish(fresh_only=False)
    told = await events(stream)
    assert told[-1].startswith(f'event: refused\ndata: {{"code":{code},')
    assert not opened.watched


async def test_a_view_that_cannot_be_made_keeps_no_other_waiting_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened, snapshots = streams(8)
    broken = {SHOP}
    take = snapshots.take

    async def taken(view: View) -> dict[str, object]:
        if view in broken:
            raise RuntimeError("broken")
        return await take(view)

    snapshots.take = taken  # type: ignore[method-assign]
    fed, starved = opened.open(ALL, allowed), opened.open(SHOP, allowed)
    others = [
        opened.open(View(frozenset({name}), whole=False), allowed) for name in ("a", "b", "c", "d")
    ]
    for _ in range(3):
        await opened.publish(fresh_only=False)
    assert [len(await events(stream)) for stream in (fed, *others)] == [3] * 5
    assert caplog.text.count("RuntimeError: broken") == 1
    assert "the live page of shop cannot be made" in caplog.text
    broken.clear()
    await opened.publish(fresh_only=False)
    broken.add(SHOP)
    await opened.publish(fresh_only=False)
    assert caplog.text.count("RuntimeError: broken") == 2, "it is news again"
    assert len(await events(starved)) == 1


async def test_who_comes_when_the_process_stops_is_refused_and_not_left_without_events() -> None:
    opened, _ = streams()
    stream = opened.open(ALL, allowed)
    opened.end()
    assert [event async for event in stream.events()] == [b"event: bye\ndata: {}\n\n"]
    with pytest.raises(CapacityExhausted, match="stops"):
        opened.open(ALL, allowed)
