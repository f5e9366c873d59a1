"""Pipelines whose runs take a known time and next to no processor."""

from __future__ import annotations

import time

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

SERVICE = 0.1
"""Seconds that a run takes."""


class Inputs(BaseModel):
    value: int = 0


@step(runs_on="thread")
def pause(value: int) -> int:
    """Take the time in a thread, so that the run keeps its slot."""
    time.sleep(SERVICE)
    return value


PAUSE = Pipeline(
    name="pause",
    version="1",
    description=f"Takes {SERVICE} s",
    inputs=Inputs,
    steps=(pause,),
    codec=ArtifactCodec(),
)
ONLY = {"BRIDGING": "false", "PIPELINES": f"{__name__}:PAUSE"}
"""Settings of processes that know this pipeline alone."""
