"""Bounds the bytes of large answers that gRPC holds for callers that have not taken them yet.

Callers of one run share its serialized answer, but gRPC copies it for each call. So a process hands
out no more than `LIMIT` at a time. A large answer waits for its turn, and is refused when that does
not come. What a caller does not take stays until its call ends, so one connection has half of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from grpc.aio import ServicerContext

from ...domain.errors import CapacityExhausted

Context = ServicerContext[Any, Any]

LIMIT: Final = 128 * 1024 * 1024
"""Bytes handed to gRPC and not written yet, of large answers; at least two of the largest run."""
SMALL: Final = 64 * 1024
"""Bytes of an answer that is not counted: the limits on calls bound these."""
PATIENCE: Final = 5.0
"""Seconds that an answer waits for its turn."""
_SHARE: Final = 0.9
"""Of the time that its caller has left."""
_AGAIN: Final = 1.0


class Parts:
    """An answer in parts, which are joined when there is room for it."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)


class _Turn:
    """A large answer that waits for room, or has it."""

    def __init__(self, size: int, connection: str, loop: asyncio.AbstractEventLoop) -> None:
        self.size = size
        self.connection = connection
        self.came: asyncio.Future[None] = loop.create_future()


class Outgoing:
    """Large answers on their way, first come, first served."""

    def __init__(self, limit: int = LIMIT, *, patience: float = PATIENCE) -> None:
        """Hand out at most `limit` bytes at a time, after at most `patience` seconds."""
        self.limit = limit
        self.held = 0
        """Bytes that are on their way."""
        self._patience = patience
        self._connections: Counter[str] = Counter()
        self._waiting: list[_Turn] = []

    async def admit(self, data: bytes | Parts, context: Context) -> bytes:
        """Return `data` when there is room for it, which it holds until the call has ended.

        Raises CapacityExhausted.
        """
        if len(data) > SMALL:
            leave = await self._enter(len(data), context)
            # The stubs of grpc declare a callback as a class that no function satisfies.
            context.add_done_callback(lambda _: leave())  # type: ignore[arg-type]
        return data if isinstance(data, bytes) else bytes(data)

    @asynccontextmanager
    async def sending(self, data: bytes, context: Context) -> AsyncGenerator[None]:
        """Hold room for one message of a stream while the context is open.

        Raises CapacityExhausted.
        """
        if len(data) <= SMALL:
            yield
            return
        leave = await self._enter(len(data), context)
        try:
            yield
        finally:
            leave()

    async def _enter(self, size: int, context: Context) -> Callable[[], None]:
        """Wait for room; return what gives it back."""
        turn = _Turn(min(size, self.limit), context.peer(), asyncio.get_running_loop())
        self._waiting.append(turn)
        self._admit_waiting()
        left: float | None = context.time_remaining()  # None without a deadline
        patience = self._patience if left is None else min(self._patience, left * _SHARE)
        try:
            async with asyncio.timeout(patience):
                await turn.came
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._admit_waiting()
            else:
                self._leave(turn)
            if isinstance(error, TimeoutError):
                reason = f"{self.held} bytes of large answers are on their way to callers"
                raise CapacityExhausted(reason, _AGAIN) from None
            raise
        return partial(self._leave, turn)

    def _leave(self, turn: _Turn) -> None:
        self.held -= turn.size
        self._connections[turn.connection] -= turn.size
        if not self._connections[turn.connection]:
            del self._connections[turn.connection]
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Let in those for which there is room, in their order."""
        for turn in list(self._waiting):
            if self.held and self.held + turn.size > self.limit:
                return  # a smaller one behind it would keep it out
            held = self._connections.get(turn.connection, 0)
            if held and held + turn.size > self.limit // 2:
                continue
            self._waiting.remove(turn)
            self.held += turn.size
            self._connections[turn.connection] += turn.size
            if not turn.came.done():
                turn.came.set_result(None)
