"""The same work as pipelines; API and worker get them through HEADSTART_PIPELINES."""

from __future__ import annotations

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

from .. import pipelines
from . import work


class Inputs(BaseModel):
    path: str


@step()
async def gate(path: str) -> float:
    return await work.gate(path)


NOOP = pipelines.NOOP
GATE = Pipeline(
    name="gate",
    version="1",
    description="Waits for a file",
    inputs=Inputs,
    steps=(gate,),
    codec=ArtifactCodec(),
)
NAMES = ",".join(f"{__name__}:{name}" for name in ("NOOP", "GATE"))
