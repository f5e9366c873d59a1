"""A pipeline that fails with its caller's own text, as careless code does."""

from __future__ import annotations

from pydantic import BaseModel

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class EchoInputs(BaseModel):
    text: str


@step(required=True)
async def bug(text: str) -> None:
    raise ValueError(text)


@step()
async def failure(text: str) -> None:
    raise StepFailed(text, retry=False)


ECHO = Pipeline(
    name="echo",
    version="1",
    description="Fails with its input",
    inputs=EchoInputs,
    steps=(bug, failure),
    codec=ArtifactCodec(),
)
