"""A subscription of a process to what the store announces of a section of the runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from ...domain import Announcement
from ...domain.errors import StoreUnavailable

log = logging.getLogger(__name__)

Subscribe = Callable[[], AbstractAsyncContextManager[AsyncIterator[Announcement]]]

_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 1.0


class Subscription:
    """Receives every announcement, and subscribes again whenever the store ends the stream."""

    def __init__(
        self,
        subscribe: Subscribe,
        *,
        opened: Callable[[], None],
        closed: Callable[[], None],
        receive: Callable[[Announcement], None],
    ) -> None:
        """Call `receive` with each announcement, between `opened` and `closed`.

        Announcements between `closed` and the next `opened` are lost.
        """
        self._subscribe = subscribe
        self._opened, self._closed, self._receive = opened, closed, receive
        self.active = False
        """Whether announcements arrive now."""

    async def run(self) -> None:
        """Receive until cancelled."""
        retry = _FIRST_RETRY
        while True:
            try:
                async with self._subscribe() as announcements:
                    self.active = True
                    self._opened()
                    retry = _FIRST_RETRY
                    async for announcement in announcements:
                        self._receive(announcement)
            except StoreUnavailable as error:
                log.warning("announcements: %s", error)
            finally:
                self.active = False
                self._closed()
            await asyncio.sleep(retry)
            retry = min(retry * 2, _LAST_RETRY)
