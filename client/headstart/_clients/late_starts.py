"""Keeps the latest start of each key, so that a newer one cancels an older one that is late."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from headstart._get_or_compute.budgeted_call import end_last

_MOST_LATE: Final = 128
"""Late starts at a time; further ones are cancelled."""

Key = tuple[str, str]
"""A run's namespace and key."""


class LatestStart:
    """The latest start of a key."""

    __slots__ = ("key", "late")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.late: asyncio.Task[None] | None = None
        """The call, once its caller waits no longer."""


class LateStarts:
    """Keeps one start for each key while its call is under way."""

    def __init__(self) -> None:
        self._latest: dict[Key, LatestStart] = {}

    def __len__(self) -> int:
        """Return the number of keys with a start under way."""
        return len(self._latest)

    def begin(self, key: Key) -> LatestStart:
        """Note a start whose caller waits for it, and cancel an older one of the key if late."""
        self.outdate(key)
        start = self._latest[key] = LatestStart(key)
        return start

    def leave(self, start: LatestStart, late: asyncio.Task[None], *, closed: bool) -> None:
        """Let a call go on whose caller waits no longer.

        It is cancelled if a newer start of its key has begun, if the client is closed, or if too
        many starts are late already.
        """
        if closed or self._latest.get(start.key) is not start or len(self._late()) >= _MOST_LATE:
            late.cancel()
            return
        start.late = late
        late.add_done_callback(partial(self._forget, start))

    def end(self, start: LatestStart) -> None:
        """Forget a start whose call has ended; one that is late is kept until it ends."""
        if start.late is None:
            self._forget(start)

    def outdate(self, key: Key) -> None:
        """Cancel a late start of this key, because the inputs of a newer one replace its own."""
        start = self._latest.pop(key, None)
        if start is not None and start.late is not None:
            start.late.cancel()

    async def close(self) -> None:
        """Let late starts end for half a second, then cancel them."""
        await end_last(self._late())

    def _late(self) -> list[asyncio.Task[None]]:
        return [start.late for start in self._latest.values() if start.late is not None]

    def _forget(self, start: LatestStart, _: object = None) -> None:
        if self._latest.get(start.key) is start:
            del self._latest[start.key]
