"""One call that a stream answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc.aio

from headstart._transport.call_errors import Rested
from headstart._transport.channels import OpenChannel

T = TypeVar("T")
Response = TypeVar("Response")


class StreamCalls(Protocol):
    """The connection that a stream belongs to."""

    async def translated(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what `make` makes of the channel. Raises HeadstartError only."""
        ...

    def forget(self, stream: Stream[Any]) -> None:
        """Note that a stream has ended."""
        ...


class Stream(Generic[Response]):
    """One call that a stream answers. It lets go of its channel when it ends."""

    def __init__(
        self,
        calls: StreamCalls,
        using: ExitStack,
        used: OpenChannel[grpc.aio.Channel],
        call: grpc.aio.UnaryStreamCall[Any, Response],
    ) -> None:
        """Read from `call`, which is made on `used` and keeps it open by `using`."""
        self._calls = calls
        self._open: _OpenStream[Response] | None = _OpenStream(using, used, call)

    async def read(self) -> Response | None:
        """Return the next message; None behind the last. Raises HeadstartError only."""
        return await self._calls.translated(self._next)

    def end(self, error: BaseException | None = None) -> None:
        """Cancel the call, if it has not ended; `error` is what it has ended with."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.call.cancel()
            opened.using.__exit__(type(error) if error else None, error, None)
        self._calls.forget(self)

    async def _next(self) -> Response | None:
        if self._open is None:
            raise Rested
        try:
            message = await self._open.call.read()
        except BaseException as error:
            self.end(error)
            raise
        if message is grpc.aio.EOF:
            return None
        if self._open is not None:
            self._open.used.note_answer()
        return cast("Response", message)


@dataclass(slots=True)
class _OpenStream(Generic[Response]):
    using: ExitStack
    used: OpenChannel[grpc.aio.Channel]
    call: grpc.aio.UnaryStreamCall[Any, Response]
