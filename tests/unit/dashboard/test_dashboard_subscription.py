"""The live page's subscription: there while a viewer is, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headstart_service.auth.grants import EVERYTHING
from headstart_service.dashboard.access import Door, View
from headstart_service.dashboard.event_streams import Stream
from headstart_service.dashboard.routes import Dashboard, Rules
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until

ALL = View(None, whole=True)


class Subscribing:
    """Counts the subscriptions of a page, which take a while to end and may miss a cancel."""

    def __init__(self, *, swallows: int = 0) -> None:
        self.swallows = swallows
        self.now = self.most = self.opened = 0
        self.ending = False

    async def __call__(self, page: Dashboard) -> None:
        self.now += 1
        self.opened += 1
        self.most = max(self.most, self.now)
        page.opened()
        try:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.swallows -= 1
                    if self.swallows < 0:
                        raise
        finally:
            self.ending = True
            await asyncio.sleep(0.2)
            page.closed()
            self.ending = False
            self.now -= 1


@asynccontextmanager
async def page_with(subscribing: Subscribing) -> AsyncIterator[Dashboard]:
    rules = Rules(door=Door(host="127.0.0.1", tokens=False, open=True), about={})
    page = Dashboard(
        FakeRunStore(), Registry([]), lambda _: EVERYTHING, rules, subscribed=subscribing
    )
    running = asyncio.create_task(page.run())
    yield page
    running.cancel()
    await asyncio.wait({running})


def view(page: Dashboard) -> Stream:
    return page.streams.open(ALL, lambda: None)


async def test_a_viewer_that_comes_while_the_subscription_ends_gets_a_new_one() -> None:
    subscribing = Subscribing()
    async with page_with(subscribing) as page:
        viewer = view(page)
        await wait_until(lambda: subscribing.now == 1)
        page.streams.close(viewer)
        await wait_until(lambda: subscribing.ending, 5)
        view(page)
        await wait_until(lambda: subscribing.opened == 2, 5)
        await wait_until(lambda: not subscribing.ending, 5)
        assert subscribing.most == 1
        assert page.counters.announced


async def test_a_subscription_that_misses_a_cancel_ends_all_the_same() -> None:
    subscribing = Subscribing(swallows=1)
    async with page_with(subscribing) as page:
        viewer = view(page)
        await wait_until(lambda: subscribing.now == 1)
        page.streams.close(viewer)
        await wait_until(lambda: subscribing.now == 0, 5)
        view(page)
        await wait_until(lambda: subscribing.opened == 2, 5)
        assert subscribing.most == 1
