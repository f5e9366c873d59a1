"""Pipelines that fail or stream, for the page to show; loaded by real processes through HEADSTART_PIPELINES."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from headstart_service.domain import FailureReason
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class Inputs(BaseModel):
    text: str = ""


@step()
async def echo(text: str) -> str:
    return text


@step(required=True, max_attempts=2, backoff=0.01)
async def refused(echo: str) -> str:
    away = FailureReason.DEPENDENCY_AWAY
    raise StepFailed("the warehouse does not answer", retry=True, failure_reason=away)


@step(required=True)
async def buggy(text: str) -> str:
    raise RuntimeError("nobody may read this")


class Desk(BaseModel):
    directory: str


@step(timeout=120, max_attempts=2, backoff=0.01)
async def essay(directory: str) -> AsyncIterator[str]:
    """Give what is written into the file `said`, until there is a file `fail` or `end`."""
    folder, given = Path(directory), 0
    while True:
        said = (folder / "said").read_text()
        if len(said) > given:
            yield said[given:]
            given = len(said)
        elif (folder / "fail").exists():  # the test waits for none of it
            (folder / "fail").rename(folder / "failed")
            raise StepFailed("the pen broke", retry=True)
        elif (folder / "end").exists():
            return
        await asyncio.sleep(0.005)


class Parcel(BaseModel):
    directory: str
    carriers: list[str]


@step(each="carriers", parallel=2, timeout=120)
async def rates(directory: str, carriers: str) -> int:
    """Fail for some carriers; wait with others for a file `open`."""
    if carriers.startswith("bad"):
        away = FailureReason.DEPENDENCY_AWAY
        raise StepFailed(f"<b>{carriers}</b> is away", retry=False, failure_reason=away)
    while carriers.startswith("held") and not (Path(directory) / "open").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return len(carriers)


@step(pool="printer")
async def label(directory: str) -> str:
    return directory


def _pipeline(name: str, *steps: object) -> Pipeline:
    return Pipeline(
        name=name,
        version="1",
        description="",
        inputs=Inputs,
        steps=steps,  # type: ignore[arg-type]
        codec=ArtifactCodec(),
    )


ECHO = _pipeline("echo", echo)
REFUSED = _pipeline("refused", echo, refused)
BUGGY = _pipeline("buggy", buggy)
ESSAY = Pipeline("essay", "1", "Text as it is written", Desk, (essay,))
PARCEL = Pipeline("parcel", "1", "Items, and a step of another pool", Parcel, (rates, label))
