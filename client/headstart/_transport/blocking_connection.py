"""A connection to the service for threads, whose calls block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from headstart._transport import forks
from headstart._transport.call_errors import Rested, check_time, translated
from headstart._transport.channels import Channels
from headstart._transport.endpoint import Endpoint

if TYPE_CHECKING:
    from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class BlockingConnection:
    """A connection for threads, whose calls block; as `Connection` otherwise."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Remember where to connect to; nothing is opened yet."""
        self._endpoint = endpoint
        self._rests = 0
        self._begin()

    def _begin(self) -> None:
        self._channels = Channels(self._endpoint, self._new_channel, _close, time.monotonic)

    def call(
        self,
        method: Callable[[PrecomputeServiceStub], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float,
    ) -> Response:
        """Make one call, raising HeadstartError only. A fork meanwhile makes it anew."""
        ends = time.monotonic() + timeout
        while True:
            rests = self._rests
            try:
                with self._channels.use() as used:
                    return method(used.stub)(
                        request,
                        timeout=max(0.0, ends - time.monotonic()),
                        metadata=self._endpoint.metadata(),
                    )
            except Rested:
                check_time(ends)
                time.sleep(forks.PAUSE)
            except grpc.RpcError as exc:
                if self._rests == rests:
                    raise translated(exc.with_traceback(None))  # noqa: B904  (it has a cause)
            except ValueError:  # gRPC raises it for a channel that was closed
                if self._rests == rests:
                    raise

    def close(self) -> None:
        """Close the channels; the next call opens another."""
        for channel in self._channels.close():
            channel.close()

    def rest(self) -> threading.Event | None:
        """Close the channel before a fork. Return what is set then; None if nothing is closed."""
        if not self._channels.open:
            return None
        self._rests += 1
        self.close()
        rested = threading.Event()
        rested.set()
        return rested

    def forked(self) -> None:
        """Forget what is the parent's, in the child."""
        forks.keep(self._channels)
        self._begin()

    def _new_channel(self) -> grpc.Channel:
        channel = forks.opened(self, self._endpoint.open_blocking)
        if channel is None:
            raise Rested
        return channel


def _close(channel: grpc.Channel) -> None:
    channel.close()
