"""The steps of the benchmark, for the service's workers and for the caller's own fallbacks.

They wait rather than work, as calls of a language model or a database do: on a machine that runs
the service, its store and the caller, working would measure who gets the processor.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

FACTS, STYLE, ANSWER = 0.15, 0.2, 0.1
"""Seconds that each step takes."""
LIVE = max(FACTS + ANSWER, STYLE)
"""Seconds that all of them take."""


class Inputs(BaseModel):
    question: str


async def find(question: str) -> str:
    await asyncio.sleep(FACTS)
    return f"facts about {question}"


async def choose(question: str) -> str:
    await asyncio.sleep(STYLE)
    return f"style for {question}"


async def write(found: str) -> str:
    await asyncio.sleep(ANSWER)
    return f"answer from {found}"


@step()
async def facts(question: str) -> str:
    """What is known."""
    return await find(question)


@step()
async def style(question: str) -> str:
    """How to say it."""
    return await choose(question)


@step()
async def answer(facts: str) -> str:
    """What is said."""
    return await write(facts)


QUESTION = Pipeline(
    name="question",
    version="1",
    description="Waits as an answer to a question does",
    inputs=Inputs,
    steps=(facts, style, answer),
    codec=ArtifactCodec(),
)
