"""How long the loop is held up while a large value is encoded: on the loop, and on a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, step
from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.values.limits import Limits, encoded

NUMBERS = [index + 0.5 for index in range(700_000)]


class Nothing(BaseModel):
    pass


@step()
async def numbers() -> list[float]:
    return NUMBERS


PIPELINE = Pipeline("encoding", "1", "", Nothing, (numbers,))


async def on_loop() -> int:
    codec = PIPELINE.codec
    assert isinstance(codec, ArtifactCodec)
    return len(codec.encode("numbers", NUMBERS))


async def on_thread() -> int:
    _, fragment = await encoded(PIPELINE.codec, "numbers", NUMBERS, Limits())
    return len(fragment)


async def measure(encode: Callable[[], Awaitable[int]]) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    size = await encode()
    took = time.perf_counter() - began
    await asyncio.sleep(0.01)
    ticking.cancel()
    print(
        f"{getattr(encode, '__name__', '')}: {size:,} bytes in {took:.2f} s, "
        f"the loop held up for {longest:.2f} s"
    )


async def main() -> None:
    for encode in (on_loop, on_thread):
        await measure(encode)


if __name__ == "__main__":
    asyncio.run(main())
