"""Pipelines that benchmarks run; API and workers get them through HEADSTART_PIPELINES."""

from __future__ import annotations

import asyncio
import random
import time

from pydantic import BaseModel

from headstart_service.engine.artifacts import ArtifactCodec
from headstart_service.engine.pipeline import Pipeline
from headstart_service.engine.step import step

_LONG_ENOUGH_TO_WAIT = 0.015


class Inputs(BaseModel):
    value: int = 0


@step()
async def nothing(value: int) -> int:
    return value


@step()
async def stamp(value: int) -> float:
    """When it ended, by the clock that all processes of this machine share."""
    del value
    await asyncio.sleep(_LONG_ENOUGH_TO_WAIT)
    return time.monotonic()


class Size(BaseModel):
    size: int


@step()
async def blob(size: int) -> bytes:
    """So many bytes that nothing can compress."""
    return random.Random(size).randbytes(size)


NOOP = Pipeline(
    name="noop",
    version="1",
    description="Computes next to nothing",
    inputs=Inputs,
    steps=(nothing,),
    codec=ArtifactCodec(),
)
STAMP = Pipeline(
    name="stamp",
    version="1",
    description="Tells when it ended",
    inputs=Inputs,
    steps=(stamp,),
    codec=ArtifactCodec(),
)
BLOB = Pipeline(
    name="blob",
    version="1",
    description="Gives as many bytes as it is asked for",
    inputs=Size,
    steps=(blob,),
    codec=ArtifactCodec(),
)
LIGHT = {"BRIDGING": "false", "PIPELINES": "benchmarks.pipelines:NOOP,benchmarks.pipelines:STAMP"}
"""Settings of processes that know these alone, so that no model is loaded."""
