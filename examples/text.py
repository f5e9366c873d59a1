"""The pipeline that `make run` has beside the word game, for docs/grpcurl.md and for trying out."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from headstart_service.sdk import Pipeline, step


class Inputs(BaseModel, extra="forbid"):
    """A text, and how long `backwards` takes: 0 leaves that step out."""

    text: str
    pause: float = Field(default=0, ge=0, le=600)


@step(required=True, timeout=10, max_attempts=2)
async def words(text: str) -> list[str]:
    """Split the text."""
    return text.split()


@step()
async def longest(words: list[str]) -> str:
    """Find the longest word."""
    return max(words, key=len)


@step(timeout=610, when=lambda inputs: inputs.pause > 0)
async def backwards(words: list[str], pause: float) -> list[str]:
    """Turn the words round, slowly: a stand-in for a language model."""
    await asyncio.sleep(pause)
    return words[::-1]


TEXT = Pipeline(
    name="text",
    version="1",
    description="Looks at a text",
    inputs=Inputs,
    steps=(words, longest, backwards),
)
