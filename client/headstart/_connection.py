"""One event loop's connection to the service: opened when first needed, closed once."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)
# ruff: noqa: ASYNC110  (what these pauses wait for happens in other threads, or within a turn or two)

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from headstart import _process
from headstart._channel import Endpoint
from headstart._errors import (
    HeadstartError,
    ServiceError,
    ServiceUnavailable,
    from_rpc_error,
)
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

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


class _Rested(ServiceUnavailable):
    """The channel was closed for a fork during this call, which can be made again."""

    def __init__(self) -> None:
        super().__init__("the connection was closed for a fork")


class Connection:
    """Opens the channel with the first use, in that use's loop, and translates what it raises.

    It rests before a fork, as `headstart._process` describes, and opens a new channel afterwards.
    """

    def __init__(
        self, endpoint: Endpoint, interceptors: Sequence[grpc.aio.ClientInterceptor]
    ) -> None:
        """Remember where to connect to; nothing is opened yet."""
        self.endpoint = endpoint
        self.closed = False
        self._interceptors = tuple(interceptors)
        self._channel: grpc.aio.Channel | None = None
        self._stub: PrecomputeServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = 0
        self._streams: set[Stream[Any]] = set()
        self._rests = 0
        self._resting: asyncio.Task[None] | None = None

    async def call(
        self, method: Method[Request, Response], request: Request, timeout: float
    ) -> Response:
        """Make one call, raising HeadstartError only. A fork meanwhile makes it anew."""
        ends = time.monotonic() + timeout
        while True:
            await self._ready()
            with suppress(_Rested):
                return await self.translated(
                    lambda: method(self._opened[1])(
                        request,
                        timeout=max(0.0, ends - time.monotonic()),
                        metadata=self.endpoint.metadata(),
                    )
                )

    async def stream(
        self, method: StreamMethod[Request, Response], request: Request
    ) -> Stream[Response]:
        """Begin one call that a stream answers."""
        await self._ready()
        call = method(self._opened[1])(request, metadata=self.endpoint.metadata())
        stream = Stream(self, call, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def connect(self, timeout: float) -> None:
        """Return once connected; raise ServiceUnavailable at the first failure or at the limit."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._ready()
                    with suppress(_Rested):
                        return await self.translated(self._connected)
        except TimeoutError:
            message = f"no connection to {self.endpoint.address} within {timeout:g} s"
            raise ServiceUnavailable(message) from None

    async def close(self, grace: float | None) -> None:
        """Close for good; calls under way get `grace` seconds, then raise ServiceUnavailable."""
        self.closed = True
        if self._channel is not None:
            await self._channel.close(grace)

    def rest(self) -> threading.Event | None:
        """Close the channel before a fork; any thread may call this.

        Calls under way are made anew behind the fork. The thread of a running loop cannot wait for
        them: when it forks during calls, the channel stays open.

        Returns:
            What is set at the end; None if nothing is closed.
        """
        loop = self._loop
        if self._channel is None or loop is None:
            return None
        rested = threading.Event()
        if loop.is_running() and loop is not asyncio._get_running_loop():  # noqa: SLF001
            with suppress(RuntimeError):  # the loop was closed this very moment
                loop.call_soon_threadsafe(self._begin_rest, rested)
            return rested
        if self._calls or self._streams:
            return None
        self._drop()
        rested.set()
        return rested

    def forked(self) -> None:
        """Forget what is the parent's, in the child."""
        _process.keep(self._channel, self._stub, self._loop, self._resting, *self._streams)
        self._drop()
        self._loop = self._resting = None
        self._streams, self._calls = set(), 0

    async def translated(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what `make` makes of the channel, and turn gRPC's exceptions into ours."""
        rests = self._rests
        self._calls += 1
        try:
            return await make()
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.CancelledError) as exc:
            # Without gRPC's frames, which hold the channel: it must end before a fork.
            raise self._translation(exc, rests) from exc.with_traceback(None)
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
            return _Rested()
        if isinstance(error, grpc.RpcError):
            return from_rpc_error(error)
        # The channel's own complaints, about being used when closed among them.
        if self.closed:
            return ServiceUnavailable("the client was closed during this call")
        return ServiceError(str(error))

    async def _ready(self) -> None:
        """Return with an open channel. Raises UnusableProcess where there can be none."""
        loop = asyncio.get_running_loop()
        if self.closed:
            message = "this client was closed"
            raise RuntimeError(message)
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            # gRPC would fail later, and obscurely.
            message = "this client belongs to another event loop: make one client per loop"
            raise RuntimeError(message)
        if self._channel is None:
            _process.check()
        while self._channel is None and not _process.opens(self, self._open):
            await asyncio.sleep(_process.PAUSE)

    def _open(self) -> None:
        self._channel = self.endpoint.open(self._interceptors)
        self._stub = PrecomputeServiceStub(self._channel)

    @property
    def _opened(self) -> tuple[grpc.aio.Channel, PrecomputeServiceAsyncStub]:
        """The channel and its stub: nothing but the caller's own call may keep them."""
        if self._channel is None or self._stub is None:  # closed for a fork this very moment
            raise _Rested
        return self._channel, self._stub

    async def _connected(self) -> None:
        channel, _ = self._opened
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
        channel = self._channel
        for stream in list(self._streams):
            stream.end()
        self._drop()
        if channel is not None:
            await channel.close(None)
        del channel
        while self._calls:
            await asyncio.sleep(0)
        rested.set()

    def _drop(self) -> None:
        """Let go of the channel, which ends when nobody else has it."""
        self._channel = self._stub = None


class BlockingConnection:
    """A connection for threads, whose calls block; as `Connection` otherwise."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Remember where to connect to; nothing is opened yet."""
        self._endpoint = endpoint
        self._lock = _process.ForkLock()
        self._channel: grpc.Channel | None = None
        self._rests = 0

    def call(
        self,
        method: Callable[[PrecomputeServiceStub], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float,
    ) -> Response:
        """Make one call, raising HeadstartError only. A fork meanwhile makes it anew."""
        ends = time.monotonic() + timeout
        while True:
            stub, rests = self._opened()
            try:
                return method(stub)(
                    request,
                    timeout=max(0.0, ends - time.monotonic()),
                    metadata=self._endpoint.metadata(),
                )
            except grpc.RpcError as exc:
                if self._rests == rests:
                    raise from_rpc_error(exc) from exc.with_traceback(None)
            except ValueError:  # by which gRPC refuses to use a channel that was closed
                if self._rests == rests:
                    raise

    def close(self) -> None:
        """Close the channel; the next call opens another."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def rest(self) -> threading.Event | None:
        """Close the channel before a fork. Return what is set then; None if nothing is closed."""
        if self._channel is None:
            return None
        self._rests += 1
        self.close()
        rested = threading.Event()
        rested.set()
        return rested

    def forked(self) -> None:
        """Forget what is the parent's, in the child."""
        _process.keep(self._channel)
        self._channel = None

    def _opened(self) -> tuple[PrecomputeServiceStub, int]:
        while True:
            with self._lock:
                if self._channel is not None:
                    return PrecomputeServiceStub(self._channel), self._rests
            _process.check()
            if not _process.opens(self, self._open):
                time.sleep(_process.PAUSE)

    def _open(self) -> None:
        with self._lock:
            if self._channel is None:
                self._channel = self._endpoint.open_blocking()


class Stream(Generic[Response]):
    """One call that a stream answers. It holds no channel between two messages."""

    def __init__(
        self,
        connection: Connection,
        call: grpc.aio.UnaryStreamCall[Any, Response],
        ended: Callable[[Stream[Response]], None],
    ) -> None:
        """Read from `call`; `ended` is called once it is over."""
        self._connection = connection
        self._call: grpc.aio.UnaryStreamCall[Any, Response] | None = call
        self._ended = ended

    async def read(self) -> Response | None:
        """Return the next message; None behind the last. Raises HeadstartError only."""
        return await self._connection.translated(self._next)

    async def _next(self) -> Response | None:
        if self._call is None:
            raise _Rested
        message = await self._call.read()
        return None if message is grpc.aio.EOF else cast("Response", message)

    def end(self) -> None:
        """Cancel the call, if it has not ended."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._ended(self)
