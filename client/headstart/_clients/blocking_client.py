"""The client for threads: Flask, Django, scripts. No event loop of the caller's is needed."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from headstart._clients.blocking_changes import BlockingChanges
from headstart._clients.blocking_starts import BlockingStarts
from headstart._clients.client import PrecomputeClient
from headstart._clients.loop_thread import CLOSED, InThread, Place
from headstart._errors import HeadstartError
from headstart._get_or_compute.budgeted_call import BUDGET
from headstart._get_or_compute.computed import Computed
from headstart._messages import arguments
from headstart._messages.descriptions import PipelineDescription, Stats
from headstart._messages.results import Page, PrecomputeStatus, Results, RunSummary, Status
from headstart._messages.stream_pieces import StreamPiece
from headstart._transport import forks

T = TypeVar("T")


class BlockingClient(BlockingStarts, BlockingChanges):
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
        self._place: Place | None = None
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
        place: Place | None = getattr(self, "_place", None)  # absent if the settings were wrong
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

    def get_results(
        self,
        key: str,
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        result_steps: Iterable[str] = (),
        min_revision: int = 0,
        partial_results: bool = False,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Results:
        """Read results as `PrecomputeClient.get_results`."""
        required = arguments.texts("required_steps", required_steps)
        wanted = arguments.texts("result_steps", result_steps)
        return self._call(
            lambda client: client.get_results(
                key,
                wait=wait,
                required_steps=required,
                result_steps=wanted,
                min_revision=min_revision,
                partial_results=partial_results,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def get_many(
        self,
        keys: Iterable[str],
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        result_steps: Iterable[str] = (),
        min_ready: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> dict[str, Results | HeadstartError]:
        """Read the results of many runs as `PrecomputeClient.get_many`."""
        names = arguments.texts("keys", keys)
        required = arguments.texts("required_steps", required_steps)
        wanted = arguments.texts("result_steps", result_steps)
        return self._call(
            lambda client: client.get_many(
                names,
                wait=wait,
                required_steps=required,
                result_steps=wanted,
                min_ready=min_ready,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def watch_results(
        self,
        key: str,
        *,
        result_steps: Iterable[str] = (),
        partial_results: bool = False,
        namespace: str | None = None,
    ) -> Generator[Results, None, None]:
        """Yield results as they grow, as `PrecomputeClient.watch_results`.

        Use `contextlib.closing()` when leaving early.
        """
        steps = arguments.texts("result_steps", result_steps)
        return self._iterate(
            lambda client: client.watch_results(
                key, result_steps=steps, partial_results=partial_results, namespace=namespace
            )
        )

    def stream(
        self, key: str, step: str, *, namespace: str | None = None
    ) -> Generator[StreamPiece, None, None]:
        """Yield what a step gives before it ends, as `PrecomputeClient.stream`.

        Use `contextlib.closing()` when leaving early.
        """
        return self._iterate(lambda client: client.stream(key, step, namespace=namespace))

    def watch_many(
        self,
        keys: Iterable[str],
        *,
        result_steps: Iterable[str] = (),
        namespace: str | None = None,
    ) -> Generator[tuple[str, Results | HeadstartError], None, None]:
        """Yield the results of many runs as they grow, as `PrecomputeClient.watch_many`.

        Use `contextlib.closing()` when leaving early.
        """
        names = arguments.texts("keys", keys)
        steps = arguments.texts("result_steps", result_steps)
        return self._iterate(
            lambda client: client.watch_many(names, result_steps=steps, namespace=namespace)
        )

    def get_status(
        self, key: str, *, namespace: str | None = None, timeout: float | timedelta | None = None
    ) -> Status:
        """Return a run's status as `PrecomputeClient.get_status`."""
        return self._call(
            lambda client: client.get_status(key, namespace=namespace, timeout=timeout)
        )

    def list(
        self,
        *,
        statuses: Iterable[PrecomputeStatus | str] = (),
        key_prefix: str = "",
        pipeline: str = "",
        page_size: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Generator[RunSummary, None, None]:
        """Yield every run that is kept, as `PrecomputeClient.list`."""
        wanted = arguments.texts("statuses", statuses)
        return self._iterate(
            lambda client: client.list(
                statuses=wanted,
                key_prefix=key_prefix,
                pipeline=pipeline,
                page_size=page_size,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def list_page(
        self,
        *,
        statuses: Iterable[PrecomputeStatus | str] = (),
        key_prefix: str = "",
        pipeline: str = "",
        page_size: int = 0,
        page_token: str = "",
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Page:
        """Return one page of `list()`, as `PrecomputeClient.list_page`."""
        wanted = arguments.texts("statuses", statuses)
        return self._call(
            lambda client: client.list_page(
                statuses=wanted,
                key_prefix=key_prefix,
                pipeline=pipeline,
                page_size=page_size,
                page_token=page_token,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def list_pipelines(
        self, *, timeout: float | timedelta | None = None
    ) -> tuple[PipelineDescription, ...]:
        """Return the pipelines that can be started, with their steps."""
        return self._call(lambda client: client.list_pipelines(timeout=timeout))

    def get_stats(
        self, *, namespace: str | None = None, timeout: float | timedelta | None = None
    ) -> Stats:
        """Count what is kept and running, as `PrecomputeClient.get_stats`."""
        return self._call(lambda client: client.get_stats(namespace=namespace, timeout=timeout))

    def connect(self, timeout: float | timedelta | None = None) -> None:
        """Open the connection now, as `PrecomputeClient.connect`."""
        self._call(lambda client: client.connect(timeout))

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
            step: InThread(arguments.function(f"fallback[{step!r}]", function), context.copy())
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

    def _iterate(
        self, begin: Callable[[PrecomputeClient], AsyncGenerator[T, None]]
    ) -> Generator[T, None, None]:
        """Yield what an asynchronous generator yields on the client's loop.

        After a fork the generator belongs to the parent, so a child raises RuntimeError.
        """
        stream: AsyncGenerator[T, None] | None = None

        async def following(client: PrecomputeClient) -> tuple[T] | None:
            nonlocal stream
            stream = stream or begin(client)
            async for item in stream:
                return (item,)
            return None

        async def close(_: PrecomputeClient) -> None:
            if stream is not None:
                await stream.aclose()

        pid = os.getpid()
        try:
            while (found := self._call(following)) is not None:
                yield found[0]
                if os.getpid() != pid:
                    raise RuntimeError("this iterator belongs to the process before the fork")
        finally:
            if os.getpid() == pid:
                with suppress(RuntimeError):  # the client was closed
                    self._call(close)

    def _call(self, make: Callable[[PrecomputeClient], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._closed:
                raise RuntimeError(CLOSED)
            if self._place is None or not self._place.is_ours():
                forks.check_threads()
                self._place = Place(self._new_client)
            place = self._place
        return place.call(make)
