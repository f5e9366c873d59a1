"""One event loop's connection to the service: opened when first needed, closed once."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)
# ruff: noqa: ASYNC110  (what these pauses wait for happens in other threads, or within a turn or two)

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from headstart._errors import HeadstartError, ServiceError, ServiceUnavailable
from headstart._transport import forks
from headstart._transport.call_errors import Rested, check_time, translated
from headstart._transport.channels import Channels
from headstart._transport.endpoint import Endpoint
from headstart._transport.stream import Stream

if TYPE_CHECKING:
    from headstart.v1.precompute_pb2_grpc import PrecomputeServiceAsyncStub

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")
Method: TypeAlias = Callable[
    ["PrecomputeServiceAsyncStub"], "grpc.aio.UnaryUnaryMultiCallable[Request, Response]"
]
"""Takes one method of the service's: `lambda stub: stub.GetResults`."""
StreamMethod: TypeAlias = Callable[
    ["PrecomputeServiceAsyncStub"], "grpc.aio.UnaryStreamMultiCallable[Request, Response]"
]


class Connection:
    """Opens the channel with the first use, in that use's loop, and translates what it raises.

    It rests before a fork, as `headstart._transport.forks` describes, and opens a new channel
    afterwards.
    """

    def __init__(
        self, endpoint: Endpoint, interceptors: Sequence[grpc.aio.ClientInterceptor]
    ) -> None:
        """Remember where to connect to; nothing is opened yet."""
        self.endpoint = endpoint
        self.closed = False
        self._interceptors = tuple(interceptors)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rests = 0
        self._resting: asyncio.Task[None] | None = None
        self._begin()

    def __del__(self) -> None:
        # A client that lives as long as its process has nothing to close; neither has a fork.
        if self._channels.open and not self.closed and not sys.is_finalizing():
            warnings.warn(
                f"unclosed connection to {self.endpoint.address}: "
                "use `async with`, or close the client",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def abandon(self) -> None:
        """Give it up, perhaps unclosed: only its loop could do that, and that may have ended."""
        self.closed = True

    def _begin(self) -> None:
        self._channels = Channels(self.endpoint, self._new_channel, self._discard, time.monotonic)
        self._discarding: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._streams: set[Stream[Any]] = set()

    async def call(
        self, method: Method[Request, Response], request: Request, timeout: float
    ) -> Response:
        """Make one call, raising HeadstartError only. A fork meanwhile makes it anew."""
        ends = time.monotonic() + timeout

        async def answer() -> Response:
            with self._channels.use(quiet=_quiet(request)) as used:
                return await method(used.stub)(
                    request,
                    timeout=max(0.0, ends - time.monotonic()),
                    metadata=self.endpoint.metadata(),
                )

        return await self._between_forks(answer, ends)

    async def stream(
        self, method: StreamMethod[Request, Response], request: Request
    ) -> Stream[Response]:
        """Begin one call that a stream answers."""

        async def begin() -> Stream[Response]:
            with ExitStack() as using:
                used = using.enter_context(self._channels.use())
                call = method(used.stub)(request, metadata=self.endpoint.metadata())
                return Stream(self, using.pop_all(), used, call)

        stream = await self._between_forks(begin)
        self._streams.add(stream)
        return stream

    async def connect(self, timeout: float) -> None:
        """Return once connected; raise ServiceUnavailable at the first failure or at the limit."""
        try:
            async with asyncio.timeout(timeout):
                await self._between_forks(self._connected)
        except TimeoutError:
            message = f"no connection to {self.endpoint.address} within {timeout:g} s"
            raise ServiceUnavailable(message) from None

    async def close(self, grace: float | None) -> None:
        """Close for good; calls under way get `grace` seconds, then raise ServiceUnavailable."""
        self.closed = True
        closing = [channel.close(grace) for channel in self._channels.close()]
        await asyncio.gather(*closing, *self._discarding)

    def forget(self, stream: Stream[Any]) -> None:
        """Take note that a stream is over."""
        self._streams.discard(stream)

    def rest(self) -> threading.Event | None:
        """Close the channel before a fork; any thread may call this.

        Calls under way are made anew behind the fork. The thread of a running loop cannot wait for
        them: when it forks during calls, the channel stays open.

        Returns:
            What is set at the end; None if nothing is closed.
        """
        loop = self._loop
        if loop is None or not (self._channels.open or self._discarding):
            return None
        rested = threading.Event()
        if loop.is_running() and loop is not asyncio._get_running_loop():  # noqa: SLF001
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._begin_rest, rested)
            return rested
        if self._calls or self._streams or self._discarding:
            return None
        self._channels.close()  # a channel ends when nothing refers to it
        rested.set()
        return rested

    def forked(self) -> None:
        """Forget what is the parent's, in the child."""
        forks.keep(self._channels, self._loop, self._resting, self._discarding, self._streams)
        self._loop = self._resting = None
        self._begin()

    async def translated(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what `make` makes of the channel, and turn gRPC's exceptions into ours."""
        rests = self._rests
        self._calls += 1
        try:
            return await make()
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.CancelledError) as exc:
            # Drop gRPC's frames: they hold the channel, which must end before a fork.
            raise self._translation(exc.with_traceback(None), rests)  # noqa: B904  (it has one)
        finally:
            self._calls -= 1

    def _translation(self, error: BaseException, rests: int) -> HeadstartError:
        """Return what to raise instead; raise the cancellation of the caller's own task."""
        if isinstance(error, asyncio.CancelledError):
            # close() and rest() cancel the calls under way. Only a task that was itself cancelled
            # may see a CancelledError: elsewhere it would pass every `except Exception`.
            task = asyncio.current_task()
            if (self._rests == rests and not self.closed) or (task and task.cancelling()):
                raise error
        if self._rests != rests:
            return Rested()
        if isinstance(error, grpc.RpcError):
            return translated(error)
        # Errors of the channel itself, such as its use after close.
        if self.closed:
            return ServiceUnavailable("the client was closed during this call")
        return ServiceError(str(error))

    async def _between_forks(self, make: Callable[[], Awaitable[T]], ends: float = inf) -> T:
        """Await what `make` makes of the channel; again, should a fork come between, until `ends`.

        Raises DeadlineExceeded when forks took all the time.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self.closed:
                message = "this client was closed"
                raise RuntimeError(message)
            if self._loop not in {None, loop}:
                # gRPC itself would fail later, with an unclear error.
                message = "this client belongs to another event loop: make one client per loop"
                raise RuntimeError(message)
            self._loop = loop
            with suppress(Rested):
                return await self.translated(make)
            check_time(ends)
            await asyncio.sleep(forks.PAUSE)

    def _new_channel(self) -> grpc.aio.Channel:
        channel = forks.opened(self, lambda: self.endpoint.open(self._interceptors))
        if channel is None:
            raise Rested
        return channel

    def _discard(self, channel: grpc.aio.Channel) -> None:
        if self._loop is not None and not self._loop.is_closed():
            closing = self._loop.create_task(channel.close())
            self._discarding.add(closing)
            closing.add_done_callback(self._discarding.discard)

    async def _connected(self) -> None:
        with self._channels.held() as opened:
            channel = opened.channel
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    message = f"cannot connect to {self.endpoint.address}"
                    raise ServiceUnavailable(message)
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)

    def _begin_rest(self, rested: threading.Event) -> None:
        self._resting = asyncio.ensure_future(self._rest(rested))

    async def _rest(self, rested: threading.Event) -> None:
        self._rests += 1
        for stream in list(self._streams):
            stream.end()
        closing = [channel.close(None) for channel in self._channels.close()]
        await asyncio.gather(*closing, *self._discarding)
        del closing
        while self._calls or self._discarding:
            await asyncio.sleep(0)
        rested.set()


def _quiet(request: Any) -> float:
    """Return for how many seconds the request lets the server wait before it answers."""
    wait = getattr(request, "wait", None)
    return 0.0 if wait is None else wait.seconds + wait.nanos / 1e9
