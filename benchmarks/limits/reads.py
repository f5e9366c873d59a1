"""Small reads that are timed while something else goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import grpc

from ..ready import GET, Unary, get_request, unary
from ..results import percentile

_LEAST = 20
Metadata = tuple[tuple[str, str], ...]


async def read_milliseconds(
    get: Callable[[], Awaitable[object]], seconds: float, codes: Counter[str] | None = None
) -> float:
    """The 99th percentile of calls that follow each other for so long; counts their codes."""
    codes = Counter() if codes is None else codes
    took: list[float] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end or len(took) < _LEAST:
        try:
            await get()
            codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1
        took.append((time.monotonic() - began) * 1e3)
        await asyncio.sleep(0.002)
    return percentile(took, 99)


def reader(
    channel: grpc.aio.Channel, key: str, metadata: Metadata = ()
) -> Callable[[], Awaitable[bytes]]:
    """Calls GetResults of this key without a wait."""
    method: Unary = unary(channel, GET)
    request = get_request(key, 0)
    return lambda: method(request, metadata=metadata, timeout=60)  # type: ignore[call-arg]


@asynccontextmanager
async def repeated(*calls: Callable[[], Awaitable[object]]) -> AsyncIterator[list[str]]:
    """Make each call again and again; gives what went wrong."""
    wrong: list[str] = []

    async def again(call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                wrong.append(error.code().name)

    tasks = [asyncio.create_task(again(call)) for call in calls]
    try:
        yield wrong
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
