"""A thread with an event loop for a client of threads, and functions that run beside it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, TypeVar

from headstart._clients.client import PrecomputeClient
from headstart._transport import forks

T = TypeVar("T")
CLOSED: Final = "this client was closed"


class Place:
    """A thread with an event loop, and a client on it."""

    def __init__(self, new_client: Callable[[], PrecomputeClient]) -> None:
        self._pid = os.getpid()
        self._client = new_client()
        self._lock = forks.ForkLock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="headstart", daemon=True)
        self._thread.start()

    def is_ours(self) -> bool:
        """Return whether this process began it; a parent's is never freed, its loop is shared."""
        if self._pid == os.getpid():
            return True
        forks.keep(self)
        return False

    def call(self, make: Callable[[PrecomputeClient], Coroutine[Any, Any, T]]) -> T:
        """Run what `make` makes on the loop, and wait for it.

        Raises RuntimeError when the client is closed, also when that happens meanwhile.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError(CLOSED)
            future = asyncio.run_coroutine_threadsafe(make(self._client), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(CLOSED) from None
        except BaseException:
            future.cancel()  # does nothing if it has ended
            raise

    def close(self) -> None:
        """Close the client, end the calls of other threads, and end the thread."""
        with self._lock:
            self._closed = True
            # Earlier calls have become tasks before this coroutine begins.
            future = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        future.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _end(self) -> None:
        try:
            await self._client.close()
        finally:
            calls = asyncio.all_tasks() - {asyncio.current_task()}
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()


class InThread:
    """A plain function as one that can be awaited. Its signature is the function's."""

    def __init__(self, function: Callable[..., Any], context: Context) -> None:
        self.__wrapped__ = function  # inspect.signature reads it
        self._context = context

    def __call__(self, **needed: Any) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if future.done():
                return  # its call has ended
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value: Any = None
            error: BaseException | None = None
            try:
                value = self._context.run(self.__wrapped__, **needed)
            except StopIteration as exc:  # which a future cannot hold
                error = RuntimeError("a fallback raised StopIteration")
                error.__cause__ = exc
            except BaseException as exc:  # noqa: BLE001  # it is its caller's, in another thread
                error = exc
            with suppress(RuntimeError):  # the client was closed
                loop.call_soon_threadsafe(settle, value, error)

        # No pool: functions that no caller can stop would fill it, and delay those that are wanted.
        threading.Thread(target=work, name="headstart fallback", daemon=True).start()
        return future
