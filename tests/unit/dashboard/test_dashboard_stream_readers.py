"""What an event stream sends to its reader, and when it leaves a reader."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from headstart_service.dashboard.access import View
from headstart_service.dashboard.call_counters import Counters
from headstart_service.dashboard.event_streams import EventResponse, Streams
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.dashboard.snapshots import Snapshots
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore
from tests.support.virtual_time import run_virtually

ALL = View(None, whole=True)


class Reader:
    """One client of an event stream, by ASGI; it takes an event once `takes` is set."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    def serve(self, streams: Streams) -> asyncio.Task[None]:
        stream = streams.open(ALL, lambda: None)
        return asyncio.create_task(EventResponse(streams, stream)({}, self.receive, self.send))  # type: ignore[arg-type]


def new_streams() -> Streams:
    store: Any = FakeRunStore()
    return Streams(Snapshots(store, RecentRuns(store, Registry([])), Counters(), {}))


def test_a_stream_is_sent_as_events_until_it_ends() -> None:
    async def main() -> None:
        streams, reader = new_streams(), Reader()
        task = reader.serve(streams)
        await streams.publish(fresh_only=True)
        await asyncio.sleep(0.1)
        streams.end()
        await task
        start, tick, bye, last = reader.sent
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        headers = dict(start["headers"])
        assert headers[b"content-type"] == b"text/event-stream"
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        name, _, data = tick["body"].decode().partition("\n")
        assert (name, json.loads(data.removeprefix("data: "))["store"]) == ("event: tick", "there")
        assert bye["body"] == b"event: bye\ndata: {}\n\n"
        assert [message["more_body"] for message in (tick, bye, last)] == [True, True, False]
        assert not streams.watched

    run_virtually(main())


def test_a_reader_that_leaves_or_takes_nothing_for_ten_seconds_frees_its_place() -> None:
    async def main() -> None:
        streams, leaves, stuck = new_streams(), Reader(), Reader()
        tasks = [leaves.serve(streams), stuck.serve(streams)]
        await asyncio.sleep(0.1)
        leaves.leaves.set()
        await tasks[0]
        assert streams.watched
        stuck.takes.clear()
        await streams.publish(fresh_only=False)
        await asyncio.sleep(9.5)
        assert not tasks[1].done()
        await asyncio.sleep(1.0)
        assert tasks[1].done()
        assert not streams.watched

    run_virtually(main())


def test_a_reader_that_does_not_take_the_end_is_left_after_ten_seconds() -> None:
    class Stuck(Reader):
        async def send(self, message: Any) -> None:
            if message.get("more_body") is False:
                await asyncio.Event().wait()

    async def main() -> None:
        streams = new_streams()
        task = Stuck().serve(streams)
        await asyncio.sleep(0.1)
        streams.end()
        await asyncio.sleep(9.5)
        assert not task.done()
        await asyncio.sleep(1.0)
        assert task.done()

    run_virtually(main())


async def test_what_is_stopped_is_watched_by_nobody() -> None:
    streams = new_streams()
    for _ in range(3):
        streams.open(ALL, lambda: None)
    streams.end()
    assert not streams.watched


def test_a_page_waits_for_its_first_viewer_no_longer_than_it_is_told() -> None:
    async def main() -> None:
        streams = new_streams()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await streams.joined(1.0)
        assert loop.time() - began == pytest.approx(1.0)
        waiting = asyncio.create_task(streams.joined(1.0))
        await asyncio.sleep(0.2)
        streams.open(ALL, lambda: None)
        await waiting
        assert loop.time() - began == pytest.approx(1.2)
        await streams.joined(1.0)
        assert loop.time() - began == pytest.approx(2.2), "only a new one counts"

    run_virtually(main())


async def test_an_end_drops_the_events_that_nobody_has_taken() -> None:
    streams = new_streams()
    stream = streams.open(ALL, lambda: None)
    for number in range(4):
        assert stream.put(f"{number}".encode())
    assert not stream.put(b"one more than may wait")
    stream.end(b"last")
    async with aclosing(stream.events()) as events:
        assert [event async for event in events] == [b"last"]
