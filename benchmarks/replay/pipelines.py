"""A pipeline for each kind of task: it takes the processor time that the kind costs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

from .trace import KINDS, Kind

_ROUNDS = 200
"""Of a hash that is computed without the interpreter's lock: some tenths of a millisecond."""


class Inputs(BaseModel):
    user: int


def _work(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        hashlib.pbkdf2_hmac("sha256", b"head", b"start", _ROUNDS)


def _step_of(kind: Kind) -> Callable[[int], Awaitable[int]]:
    async def work(user: int) -> int:
        await asyncio.to_thread(_work, kind.cost)
        return user

    return work


FORM, REPORT, GAME = (
    Pipeline(
        name=kind.pipeline,
        version="1",
        description=f"Takes {kind.cost:.3f} s of a processor",
        inputs=Inputs,
        steps=(step()(_step_of(kind)),),
        codec=ArtifactCodec(),
    )
    for kind in KINDS
)
ONLY = {
    "BRIDGING": "false",
    "PIPELINES": ",".join(
        f"benchmarks.replay.pipelines:{name}" for name in ("FORM", "REPORT", "GAME")
    ),
}
