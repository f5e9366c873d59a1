"""Pipelines whose steps stream, for tests and figures in processes of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, StepFailed, step

REFERENCE = "tests.support.streaming_pipelines:WORDS,tests.support.streaming_pipelines:COUNT"


class Gate(BaseModel):
    directory: str
    """The step goes on when it has a file `go`; `closed` appears when the generator is closed."""


class Verdict(BaseModel):
    words: int


@step(timeout=120)
async def draft(directory: str) -> AsyncIterator[str]:
    yield "befüre "
    try:
        while not (Path(directory) / "go").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        (Path(directory) / "closed").write_text(str(time.monotonic()))
        raise
    yield "after"


@step(timeout=120)
async def verdicts(directory: str) -> AsyncIterator[Verdict]:
    del directory
    yield Verdict(words=1)
    yield Verdict(words=2)


@step(timeout=120)
async def verdict(draft: str) -> AsyncIterator[str | Verdict]:
    yield "counting"
    yield Verdict(words=len(draft.split()))


@step(timeout=120)
async def failing(draft: str) -> AsyncIterator[str]:
    yield draft[:3]
    raise StepFailed("broke off")


WORDS = Pipeline("words", "1", "Text behind a gate", Gate, (draft, verdicts, verdict, failing))


class Tokens(BaseModel):
    tokens: int = 10
    pause: float = 0.02
    """Seconds between two tokens."""


def whole(tokens: int) -> str:
    """What `count` gives."""
    return "".join(f"{number} " for number in range(tokens))


@step(timeout=300, required=True)
async def count(tokens: int, pause: float) -> AsyncIterator[str]:
    for number in range(tokens):
        yield f"{number} "
        await asyncio.sleep(pause)


COUNT = Pipeline("count", "1", "Numbers, one after the other", Tokens, (count,))
