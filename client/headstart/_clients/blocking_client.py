"""The client for threads: Flask, Django, scripts. No event loop of the caller's is needed."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import timedelta
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from headstart._clients.client import PrecomputeClient
from headstart._get_or_compute.budgeted_call import BUDGET
from headstart._get_or_compute.computed import Computed
from headstart._messages import arguments
from headstart._messages.artifacts import Json
from headstart._messages.results import RecipientType, Results, Started
from headstart._transport import forks

T = TypeVar("T")
_CLOSED: Final = "this client was closed"


class BlockingClient:
    """`PrecomputeClient` for plain functions. All methods may be called from any thread.

        headstart = BlockingClient()  # one for the process
        headstart.start_bridging_or_skip("game-1", "ocean", "forest", "haiku")
        computed = headstart.get_or_compute("game-1", 10.0, {"null_samples": draw})

    Calls run on one event loop, in a thread that begins with the first call. Arguments, values and
    errors are those of `PrecomputeClient`. In a coroutine use that: these methods block the loop.

    A fork (gunicorn's `preload_app`, Celery, `ProcessPoolExecutor`) is safe at any time. Each child
    begins its own thread and connection, and the parent repeats the calls that were under way.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        new_client: Callable[..., PrecomputeClient] = PrecomputeClient,
        **settings: Any,
    ) -> None:
        """Remember the settings, which are those of `PrecomputeClient`; nothing is opened yet.

        Raises:
            ValueError: A setting out of range.
            UnusableProcess: gevent or eventlet has patched this process's threads.
        """
        forks.check_threads()
        self._new_client = partial(new_client, address, **settings)
        self._lock = forks.ForkLock()
        self._place: _Place | None = None
        self._closed = False
        self._new_client()  # raises for wrong settings here rather than in the first call

    def __enter__(self) -> Self:
        """Return the client itself, still unconnected."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        place: _Place | None = getattr(self, "_place", None)  # absent if the settings were wrong
        if place is not None and place.is_ours() and not sys.is_finalizing():
            warnings.warn(
                "unclosed BlockingClient: use `with`, or call its close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def close(self) -> None:
        """Close for good; harmless when done twice. Reports under way get half a second.

        Calls that other threads are in raise RuntimeError.
        """
        with self._lock:
            self._closed = True
            place, self._place = self._place, None
        if place is not None and place.is_ours():
            place.close()

    def start_bridging(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        **options: Any,
    ) -> Started:
        """Start a game as `PrecomputeClient.start_bridging`."""
        return self._call(
            lambda client: client.start_bridging(key, anchor, target, recipient_type, **options)
        )

    def start(self, key: str, pipeline: str, inputs: Mapping[str, Json], **options: Any) -> Started:
        """Start a run as `PrecomputeClient.start`."""
        return self._call(lambda client: client.start(key, pipeline, inputs, **options))

    def start_bridging_or_skip(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        **options: Any,
    ) -> Started | None:
        """Start a game, or skip it, as `PrecomputeClient.start_bridging_or_skip`."""
        return self._call(
            lambda client: client.start_bridging_or_skip(
                key, anchor, target, recipient_type, **options
            )
        )

    def start_or_skip(
        self, key: str, pipeline: str, inputs: Mapping[str, Json], **options: Any
    ) -> Started | None:
        """Start a run, or skip it, as `PrecomputeClient.start_or_skip`."""
        return self._call(lambda client: client.start_or_skip(key, pipeline, inputs, **options))

    def get_results(
        self,
        key: str,
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        **options: Any,
    ) -> Results:
        """Read results as `PrecomputeClient.get_results`."""
        steps = arguments.texts("required_steps", required_steps)
        return self._call(
            lambda client: client.get_results(key, wait=wait, required_steps=steps, **options)
        )

    def get_or_compute(
        self,
        key: str,
        deadline: float | timedelta,
        fallback: Mapping[str, Callable[..., Any]],
        *,
        report: bool = False,
        budget: float | timedelta = BUDGET,
        min_revision: int = 0,
        namespace: str | None = None,
    ) -> Computed:
        """Return values as `PrecomputeClient.get_or_compute`, with plain functions as fallbacks.

        Each runs in a thread of its own, with a copy of the caller's context variables. What a
        framework ties to the thread (a database connection of Django's) is another there. A thread
        cannot be stopped. A function that the service has beaten, or the deadline, goes on to its
        end, and what it returns is forgotten.
        """
        arguments.mapping("fallback", fallback, "steps to functions")
        context = copy_context()
        functions = {
            step: _InThread(arguments.function(f"fallback[{step!r}]", function), context.copy())
            for step, function in fallback.items()
        }
        return self._call(
            lambda client: client.get_or_compute(
                key,
                deadline,
                functions,
                report=report,
                budget=budget,
                min_revision=min_revision,
                namespace=namespace,
            )
        )

    def _call(self, make: Callable[[PrecomputeClient], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._closed:
                raise RuntimeError(_CLOSED)
            if self._place is None or not self._place.is_ours():
                forks.check_threads()
                self._place = _Place(self._new_client)
            place = self._place
        return place.call(make)


class _Place:
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
                raise RuntimeError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(make(self._client), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(_CLOSED) from None
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


class _InThread:
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
