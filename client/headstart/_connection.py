"""One event loop's connection to the service: opened when first needed, closed once."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from headstart._channel import Endpoint
from headstart._errors import ServiceError, ServiceUnavailable, cause_of, from_rpc_error
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

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
        self._channel: grpc.aio.Channel | None = None
        self._stub: PrecomputeServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def __del__(self) -> None:
        # A client that lives as long as its process has nothing to close; neither has a fork.
        forgotten = self._channel is not None and not self.closed
        if forgotten and not sys.is_finalizing() and os.getpid() == self._pid:
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

    @property
    def stub(self) -> PrecomputeServiceAsyncStub:
        """The service's methods; what they raise is still gRPC's: see `call` and `translated`."""
        channel = self._open()
        if self._stub is None:
            self._stub = PrecomputeServiceStub(channel)
        return self._stub

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float,
    ) -> Response:
        """Make one call, raising HeadstartError only."""
        with self.translated():
            return await method(request, timeout=timeout, metadata=self.endpoint.metadata())

    async def connect(self, timeout: float) -> None:
        """Return once connected; raise ServiceUnavailable at the first failure or at the limit."""
        channel = self._open()
        with self.translated():
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
        if self._channel is not None:
            await self._channel.close(grace)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn gRPC's exceptions into ours."""
        try:
            yield
        except grpc.RpcError as exc:
            error = from_rpc_error(exc)
            raise error from cause_of(error, exc)
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

    def _open(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self.closed:
            message = "this client was closed"
            raise RuntimeError(message)
        if self._channel is None:
            self._channel = self.endpoint.open(self._interceptors)
            self._loop = loop
            self._pid = os.getpid()
        elif self._loop is not loop:
            # gRPC would fail later, and obscurely.
            message = "this client belongs to another event loop: make one client per loop"
            raise RuntimeError(message)
        return self._channel

    @staticmethod
    def _closed_meanwhile() -> ServiceUnavailable:
        return ServiceUnavailable("the client was closed during this call")
