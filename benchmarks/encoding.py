"""How large values are encoded and decoded: docs/decisions/0027.

How long the loop is held up while a value is encoded, on the loop and on a thread. How long a
caller decodes a million 32-bit floats: out of a tensor, and out of `repeated float`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
from pydantic import BaseModel

from headstart._messages.artifacts import artifact_from, artifact_to
from headstart.v1 import precompute_pb2 as pb
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


def decoding() -> None:
    array = np.random.default_rng(1).random(1_000_000, np.float32)
    message = artifact_to(array)
    tensor, data = artifact_from(message), message.tensor.data
    repeated = pb.Embedding(values=array.tolist())
    ways: dict[str, Callable[[], object]] = {
        "numpy.frombuffer, of the bytes alone": lambda: np.frombuffer(data, np.float32),
        "numpy.asarray(tensor)": lambda: np.asarray(tensor),
        "the same, out of the message": lambda: np.asarray(artifact_from(message)),
        "numpy.array(repeated float)": lambda: np.array(repeated.values, np.float32),
        "numpy.array(tuple(repeated float))": lambda: np.array(tuple(repeated.values), np.float32),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(30):
        for name, decode in ways.items():
            began = time.perf_counter()
            decode()
            least[name] = min(least[name], time.perf_counter() - began)
    for name, seconds in least.items():
        print(f"{name}: {seconds * 1e6:,.1f} µs")


async def main() -> None:
    for encode in (on_loop, on_thread):
        await measure(encode)
    decoding()


if __name__ == "__main__":
    asyncio.run(main())
