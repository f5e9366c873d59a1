"""Pipelines that fail, for the page to show; loaded by real processes through HEADSTART_PIPELINES."""

from __future__ import annotations

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
