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

from headstart import _arguments
from headstart._artifacts import Json
from headstart._client import PrecomputeClient
from headstart._computed import Computed
from headstart._results import RecipientType, Results, Started

T = TypeVar("T")
_CLOSED: Final = "this client was closed"


class BlockingClient:
    """`PrecomputeClient` for plain functions. All methods may be called from any thread.

        headstart = BlockingClient()  # one for the process
        headstart.start_bridging("game-1", "ocean", "forest", "haiku")
        computed = headstart.get_or_compute("game-1", 10.0, {"null_samples": draw})

    Calls run on one event loop, in a thread that begins with the first call; after a fork the child
    begins its own. Arguments, values and errors are those of `PrecomputeClient`. In a coroutine use
    that: these methods block the loop.
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
        """
        self._new_client = partial(new_client, address, **settings)
        self._lock = threading.Lock()
        self._place: _Place | None = None
        self._closed = False
        self._new_client()  # refuses wrong settings here rather than in the first call

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
        place: _Place | None = getattr(self, "_place", None)  # absent where the settings are wrong
        if place is not None and not sys.is_finalizing() and place.pid == os.getpid():
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
        if place is not None and place.pid == os.getpid():
            place.close()

    def start_bridging(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        **options: Any,
    ) -> Started:
        """As `PrecomputeClient.start_bridging`."""
        return self._call(
            lambda client: client.start_bridging(key, anchor, target, recipient_type, **options)
        )

    def start(self, key: str, pipeline: str, inputs: Mapping[str, Json], **options: Any) -> Started:
        """As `PrecomputeClient.start`."""
        return self._call(lambda client: client.start(key, pipeline, inputs, **options))

    def get_results(
        self,
        key: str,
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        **options: Any,
    ) -> Results:
        """As `PrecomputeClient.get_results`."""
        steps = _arguments.texts("required_steps", required_steps)
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
        budget: float | timedelta = 0.025,
        min_revision: int = 0,
        namespace: str | None = None,
    ) -> Computed:
        """As `PrecomputeClient.get_or_compute`, with plain functions as fallbacks.

        Each runs in a thread of its own, with a copy of the caller's context variables; what a
        framework ties to the thread (a database connection of Django's) is another there. A thread
        cannot be stopped: a function that the service has beaten, or the deadline, goes on to its
        end, and what it returns is forgotten.
        """
        _arguments.mapping("fallback", fallback, "steps to functions")
        context = copy_context()
        functions = {
            step: _InThread(_arguments.function(f"fallback[{step!r}]", function), context.copy())
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
            if self._place is None or self._place.pid != os.getpid():
                self._place = _Place(self._new_client)
            place = self._place
        return place.call(make)


class _Place:
    """A thread with an event loop, and a client on it."""

    def __init__(self, new_client: Callable[[], PrecomputeClient]) -> None:
        self.pid = os.getpid()
        self._client = new_client()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="headstart", daemon=True)
        self._thread.start()

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
            future.cancel()  # does nothing where it has ended
            raise

    def close(self) -> None:
        """Close the client, end the calls of other threads, and end the thread."""
        with self._lock:
            self._closed = True
            # Calls that were made before are tasks by the time it begins.
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
        self.__wrapped__ = function  # what inspect.signature looks at
        self._context = context

    def __call__(self, **needed: Any) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def tell(value: Any, error: BaseException | None) -> None:
            if future.done():
                return  # nobody waits any more
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
                loop.call_soon_threadsafe(tell, value, error)

        # No pool: functions that nobody can stop would fill it, and hold up those that are wanted.
        threading.Thread(target=work, name="headstart fallback", daemon=True).start()
        return future
