"""A channel to nobody on a virtual clock: minutes pass at once, and a test plays every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import grpc
import grpc.aio
import pytest

from headstart import ServiceError
from tests.support.virtual_time import loop_time

DAY = 86_400.0


def use_loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clocks of code on a loop be that loop's; threads without a loop keep theirs."""

    def of_the_loop(real: Callable[[], float]) -> Callable[[], float]:
        def now() -> float:
            try:
                return loop_time()
            except RuntimeError:
                return real()

        return now

    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, of_the_loop(getattr(time, name)))


class Channel:
    """For either kind of client. Calls are refused and streams brought to nothing by default."""

    def __init__(self, lives: float = 0.0, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, Any, float]] = []
        """Each call's method, request and timeout."""
        self.connects_in = 0.0
        self.answer: Callable[[str, Any], Awaitable[Any]] = self.refuse
        self.opened = 0
        self.closed = 0
        self.lives, self.error = lives, error
        """How long a stream lives that brings nothing, and what it ends with; None: just so."""
        self.messages: list[Any] = []
        """What the next streams bring first."""
        self.watches: list[float] = []
        """When each stream began."""
        self.left = 0
        """Streams that their reader has cancelled."""

    def open(self, *_: Any, **__: Any) -> Channel:
        self.opened += 1
        return self

    @property
    def limits(self) -> list[tuple[str, float]]:
        return [(name, round(limit, 6)) for name, _, limit in self.calls]

    @property
    def pauses(self) -> list[float]:
        """The pauses between streams."""
        return [round(b - a - self.lives, 6) for a, b in pairwise(self.watches)]

    async def refuse(self, name: str, request: Any) -> Any:
        raise ServiceError("noted")

    def unary_unary(self, path: str, **_: Any) -> Any:
        name = path.rpartition("/")[2]

        async def call(request: Any, *, timeout: float, metadata: Any) -> Any:  # noqa: ASYNC109
            self.calls.append((name, request, timeout))
            return await self.answer(name, request)

        return call

    def unary_stream(self, path: str, **_: Any) -> Any:
        def call(request: Any, *, metadata: Any) -> Channel:
            self.watches.append(loop_time())
            return self

        return call

    async def read(self) -> Any:
        if self.messages:
            return self.messages.pop()
        await asyncio.sleep(self.lives)
        if self.error is None:
            return grpc.aio.EOF
        raise self.error

    def cancel(self) -> None:
        self.left += 1

    def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:
        connected = self.connects_in <= 0.0
        return grpc.ChannelConnectivity.READY if connected else grpc.ChannelConnectivity.CONNECTING

    async def wait_for_state_change(self, state: grpc.ChannelConnectivity) -> None:
        await asyncio.sleep(self.connects_in)
        self.connects_in = 0.0

    async def close(self, grace: float | None = None) -> None:
        self.closed += 1


def use(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients open this channel, and let their clock be the loop's."""
    monkeypatch.setattr(grpc.aio, "insecure_channel", channel.open)
    use_loop_time(monkeypatch)
