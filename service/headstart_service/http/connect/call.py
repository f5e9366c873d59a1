"""One call over HTTP: what its method, its limits and its trace know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.types import Receive

from .bodies import ClientGone
from .head import Head

T = TypeVar("T")


class HttpCall:
    """A call under way. For `Outgoing` it stands where gRPC's context does."""

    def __init__(self, head: Head) -> None:
        """Begin the caller's timeout. Raises Refused."""
        self.head = head
        self.stopped = False
        """Whether the server ended it because it stops."""
        self._loop = asyncio.get_running_loop()
        timeout = head.timeout()
        self.ends = None if timeout is None else self._loop.time() + timeout
        self._scope = asyncio.timeout_at(self.ends)
        self._entered = False
        self._done: list[Callable[[Any], object]] = []

    def peer(self) -> str:
        """Return the connection's other end."""
        return self.head.peer

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, None without one."""
        return None if self.ends is None else self.ends - self._loop.time()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have this called when the call has ended."""
        self._done.append(callback)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Run the callbacks when the context is left, with the response sent or not."""
        try:
            yield
        finally:
            for callback in self._done:
                callback(self)

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns. Raises TimeoutError at the deadline, or when stopped."""
        if self.overdue:
            work.close()
            raise TimeoutError
        async with self._scope:
            self._entered = True
            return await work

    @property
    def overdue(self) -> bool:
        """Whether a TimeoutError of `within` is the call's own."""
        left = self.time_remaining()
        return self.stopped or self._scope.expired() or (left is not None and left <= 0)

    def stop(self) -> None:
        """End it now, because the server stops."""
        self.stopped = True
        if self._entered and not self._scope.expired():
            self._scope.reschedule(self._loop.time())


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it, and raise ClientGone, when the caller has gone."""
    working = asyncio.ensure_future(work)
    # It may fail in the moment in which this is cancelled: no code asks for its failure then.
    working.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
