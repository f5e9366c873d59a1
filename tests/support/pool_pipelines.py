"""A pipeline with steps of two pools, for tests: each leaves a line when it begins."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step

REFERENCE = "tests.support.pool_pipelines:MIXED"


class Inputs(BaseModel):
    directory: str
    """Where the steps write `began`, and look for a file of their name."""
    fails: int = 0


def _began(directory: str, name: str) -> None:
    with (Path(directory) / "began").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


async def _gate(directory: str, name: str) -> None:
    _began(directory, name)
    while not (Path(directory) / name).exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.005)


@step(required=True)
async def seed(directory: str) -> int:
    _began(directory, "seed")
    return 7


@step(required=True, pool="gpu", timeout=120)
async def render(directory: str, seed: int, fails: int) -> list[int]:
    """Ends when the file `render` exists; its value has the process that computed it."""
    _began(directory, "render")
    if fails:
        raise StepFailed("no card", retry=False)
    while not (Path(directory) / "render").exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.005)
    return [seed, os.getpid()]


@step(timeout=120)
async def speak(directory: str, seed: int) -> int:
    """Ends when the file `speak` exists."""
    await _gate(directory, "speak")
    return os.getpid()


@step()
async def whole(render: list[int], speak: int) -> list[int]:
    return [*render, speak, os.getpid()]


MIXED = Pipeline("mixed", "1", "Steps of two pools", Inputs, (seed, render, speak, whole))
