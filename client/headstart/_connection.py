"""One event loop's connection to the service: opened when first needed, closed once."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from headstart._channel import Endpoint
from headstart._channels import Channels, OpenChannel
from headstart._errors import ServiceError, ServiceUnavailable, from_rpc_error

if TYPE_CHECKING:
    from headstart.v1.precompute_pb2_grpc import PrecomputeServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class Connection:
    """Opens the channel with the first use, in that use's loop, and translates what it raises."""

    def __init__(
        self, endpoint: Endpoint, interceptors: Sequence[grpc.aio.ClientInterceptor]
    ) -> None:
        """Remember where to connect to; nothing is opened yet."""
        self.endpoint = endpoint
        self.closed = False
        self._interceptors = tuple(interceptors)
        self._channels = Channels(endpoint, self._new_channel, self._discard)
        self._used: OpenChannel[grpc.aio.Channel] | None = None
        self._discarding: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def stub(self) -> PrecomputeServiceAsyncStub:
        """The service's methods; what they raise is still gRPC's: see `call` and `translated`.

        Ask for it for each call: the channel behind it may be another one each time.
        """
        self._used = self._open()
        stub: PrecomputeServiceAsyncStub = self._used.stub
        return stub

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float,
    ) -> Response:
        """Make one call of `stub`, raising HeadstartError only."""
        with self.translated(), self.in_use(quiet=_quiet(request)):
            return await method(request, timeout=timeout, metadata=self.endpoint.metadata())

    def in_use(
        self, *, quiet: float = 0.0
    ) -> AbstractContextManager[OpenChannel[grpc.aio.Channel]]:
        """Keep the channel of the `stub` that was asked for last open during a call.

        The server may rightly send nothing for `quiet` seconds.
        """
        return self._channels.use(self._used, quiet=quiet)

    async def connect(self, timeout: float) -> None:
        """Return once connected; raise ServiceUnavailable at the first failure or at the limit."""
        opened = self._used = self._open()
        channel = opened.channel
        with self.translated(), self._channels.held(opened):
            try:
                async with asyncio.timeout(timeout):
                    state = channel.get_state(try_to_connect=True)
                    while state is not grpc.ChannelConnectivity.READY:
                        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                            message = f"cannot connect to {self.endpoint.address}"
                            raise ServiceUnavailable(message)
                        await channel.wait_for_state_change(state)
                        state = channel.get_state(try_to_connect=True)
            except TimeoutError:
                message = f"no connection to {self.endpoint.address} within {timeout:g} s"
                raise ServiceUnavailable(message) from None

    async def close(self, grace: float | None) -> None:
        """Close for good; calls under way get `grace` seconds, then raise ServiceUnavailable."""
        self.closed = True
        closing = [channel.close(grace) for channel in self._channels.close()]
        await asyncio.gather(*closing, *self._discarding)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn gRPC's exceptions into ours."""
        try:
            yield
        except grpc.RpcError as exc:
            raise from_rpc_error(exc) from exc
        except grpc.aio.BaseError as exc:
            # The channel's own complaints, about being used when closed among them.
            raise self._closed_meanwhile() if self.closed else ServiceError(str(exc)) from exc
        except asyncio.CancelledError:
            # close() cancels the calls under way. Only a task that was itself cancelled may see a
            # CancelledError: elsewhere it would pass every `except Exception`.
            task = asyncio.current_task()
            if self.closed and (task is None or not task.cancelling()):
                raise self._closed_meanwhile() from None
            raise

    def _open(self) -> OpenChannel[grpc.aio.Channel]:
        loop = asyncio.get_running_loop()
        if self.closed:
            message = "this client was closed"
            raise RuntimeError(message)
        if self._loop not in (None, loop):
            # gRPC would fail later, and obscurely.
            message = "this client belongs to another event loop: make one client per loop"
            raise RuntimeError(message)
        opened = self._channels.current()
        self._loop = loop
        return opened

    def _new_channel(self) -> grpc.aio.Channel:
        return self.endpoint.open(self._interceptors)

    def _discard(self, channel: grpc.aio.Channel) -> None:
        if self._loop is not None and not self._loop.is_closed():
            closing = self._loop.create_task(channel.close())
            self._discarding.add(closing)
            closing.add_done_callback(self._discarding.discard)

    @staticmethod
    def _closed_meanwhile() -> ServiceUnavailable:
        return ServiceUnavailable("the client was closed during this call")


def _quiet(request: Any) -> float:
    """For how many seconds the server may wait before it answers, as the request asks it to."""
    wait = getattr(request, "wait", None)
    return 0.0 if wait is None else wait.seconds + wait.nanos / 1e9
