"""Pipelines that combine what steps can do: pools, streams, settling, memos, own providers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, StepFailed, step

REFERENCE = ",".join(
    f"tests.support.combined_pipelines:{name}" for name in ("SPOKEN", "KEPT", "BROKEN", "LARGE")
)


class Inputs(BaseModel):
    directory: str
    """Where the steps write `began`; a stream goes on when it has a file `go`."""
    edit: int = 0
    tokens: int = 5
    pause: float = 0.01


def note(directory: str, name: str) -> None:
    """Leave a line that a step has begun."""
    with (Path(directory) / "began").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


async def words(directory: str, tokens: int, pause: float, name: str) -> AsyncIterator[str]:
    note(directory, name)
    for number in range(tokens):
        yield f"{number} "
        await asyncio.sleep(pause)
    while not (Path(directory) / "go").exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.005)
    yield "end"


@step(required=True)
async def seed(directory: str) -> int:
    note(directory, "seed")
    return 7


@step(pool="gpu", timeout=120)
async def far(directory: str, tokens: int, pause: float, seed: int) -> AsyncIterator[str]:
    yield f"{seed}: "
    async for word in words(directory, tokens, pause, "far"):
        yield word


@step(pool="gpu", timeout=120, settle=1)
async def settled(directory: str, edit: int, tokens: int, pause: float) -> AsyncIterator[str]:
    yield f"edit {edit}: "
    async for word in words(directory, tokens, pause, "settled"):
        yield word


@step(timeout=120, settle=1)
async def near(directory: str, edit: int, tokens: int, pause: float) -> AsyncIterator[str]:
    yield f"edit {edit}: "
    async for word in words(directory, tokens, pause, "near"):
        yield word


SPOKEN = Pipeline("spoken", "1", "Streams of two pools", Inputs, (seed, far, settled, near))


@step(timeout=120, memo=True)
async def kept(directory: str, tokens: int, pause: float) -> AsyncIterator[str]:
    async for word in words(directory, tokens, pause, "kept"):
        yield word


@step(timeout=120, memo=True)
async def items(directory: str, tokens: int) -> AsyncIterator[int]:
    note(directory, "items")
    for number in range(tokens):
        yield number


KEPT = Pipeline("kept", "1", "Streams that are memoised", Inputs, (kept, items))


class Tries(BaseModel):
    directory: str


@step(timeout=30, max_attempts=3, backoff=0.05, retry_on=(ConnectionError,))
async def breaks(directory: str) -> AsyncIterator[str]:
    note(directory, "breaks")
    tries = (Path(directory) / "began").read_text().count("breaks ")
    yield f"try {tries} "
    await asyncio.sleep(0.1)
    if tries < 3:
        raise ConnectionError("reset")
    yield "whole"


@step(timeout=30, max_attempts=3, backoff=0.05, retry_on=(ConnectionError,))
async def mistaken(directory: str) -> AsyncIterator[str]:
    note(directory, "mistaken")
    yield "half"
    raise StepFailed("no more", retry=False)


BROKEN = Pipeline("broken", "1", "Streams that break off", Tries, (breaks, mistaken))


@step(timeout=30, max_bytes=10_000)
async def large(directory: str) -> AsyncIterator[str]:
    del directory
    for _ in range(400):
        yield "x" * 1000
        await asyncio.sleep(0.001)


LARGE = Pipeline("large", "1", "A stream beyond its step's size", Tries, (large,))
