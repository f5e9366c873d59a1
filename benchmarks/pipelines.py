"""Pipelines that benchmarks run; API and workers get them through HEADSTART_PIPELINES."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

_LONG_ENOUGH_TO_WAIT = 0.015
_ENCODING, _SCAN = 0.01, 0.005


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


@step()
async def ends(value: int) -> int:
    """Take about as long as two words take the encoder."""
    await asyncio.sleep(_ENCODING)
    return value


@step()
async def best(ends: int) -> int:
    await asyncio.sleep(_SCAN)
    return ends


@step()
async def samples(ends: int) -> int:
    await asyncio.sleep(_SCAN)
    return ends


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
SHAPE = Pipeline(
    name="shape",
    version="1",
    description="Has the steps of a game, and computes nothing",
    inputs=Inputs,
    steps=(ends, best, samples),
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
_LIGHT = ",".join(f"{__name__}:{name}" for name in ("NOOP", "STAMP", "SHAPE"))
LIGHT = {"BRIDGING": "false", "PIPELINES": _LIGHT}
"""Settings of processes that know these alone, so that no model is loaded."""


class Edited(BaseModel):
    anchor: str
    target: str


_PIECE = b"\0" * 1_000_000
_PIECES = {"read": 5, "near": 25, "bridge": 10}
"""Of a step's work, each about a millisecond of one core."""


def _begun(kind: str) -> None:
    with Path(os.environ["EDITING_LOG"]).open("a") as file:
        file.write(f"{kind}\n")


async def _work(kind: str, about: str) -> str:
    """Compute for a while; a line in the file `EDITING_LOG` says that a step was begun."""
    _begun(kind)
    fingerprint = hashlib.sha256(about.encode())
    for _ in range(_PIECES[kind]):
        fingerprint.update(_PIECE)
        await asyncio.sleep(0)  # where it can be cancelled, as real work can
    return fingerprint.hexdigest()


@step(required=True, memo=True)
async def read_anchor(anchor: str) -> str:
    return await _work("read", anchor)


@step(required=True, memo=True)
async def near_anchor(read_anchor: str) -> str:
    return await _work("near", read_anchor)


@step(required=True, memo=True)
async def read_target(target: str) -> str:
    return await _work("read", target)


@step(required=True, memo=True)
async def near_target(read_target: str) -> str:
    return await _work("near", read_target)


@step(required=True, memo=True)
async def bridge(near_anchor: str, near_target: str) -> str:
    return await _work("bridge", near_anchor + near_target)


_CALL = 1.2
"""Seconds that a paid call takes, such as one of a language model."""


async def _paid(about: str) -> str:
    _begun("paid")
    await asyncio.sleep(_CALL)
    return about


@step(required=True)
async def eager_answer(anchor: str) -> str:
    return await _paid(anchor)


@step(required=True, settle=0.6)
async def settled_answer(anchor: str) -> str:
    return await _paid(anchor)


EAGER = Pipeline("eager", "1", "A paid call for each edit", Edited, (eager_answer,))
SETTLED = Pipeline("settled", "1", "A paid call once the edit settles", Edited, (settled_answer,))
EDITING = Pipeline(
    name="editing",
    version="1",
    description="Two steps of the anchor alone, two of the target alone, and one of both",
    inputs=Edited,
    steps=(read_anchor, near_anchor, read_target, near_target, bridge),
    codec=ArtifactCodec(),
)


class Tokens(BaseModel):
    tokens: int
    pause: float
    """Seconds between two tokens."""
    closed: str = ""
    """A file in which the step writes when it was cancelled."""


@step(timeout=600)
async def tokens_of_time(tokens: int, pause: float, closed: str) -> AsyncIterator[str]:
    """Give each token's number, and when it was given by the clock that all processes share."""
    due = time.monotonic()
    try:
        for number in range(tokens):
            yield f"{number}:{time.monotonic_ns()} "
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    except asyncio.CancelledError:
        if closed:
            Path(closed).write_text(str(time.monotonic()))  # noqa: ASYNC240  # it ends here
        raise


STREAM = Pipeline("stream", "1", "Tokens of time", Tokens, (tokens_of_time,))
