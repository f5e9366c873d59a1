"""Pipelines for tests, loaded by real processes through HEADSTART_PIPELINES.

`probe` leaves a line in a file each time one of its steps begins, so that tests can count what ran
in which process. Its steps end when a file appears, not after a time.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class ProbeInputs(BaseModel):
    directory: str
    """Where the steps write `began` and look for `go`."""
    value: int = 0


class NoInputs(BaseModel):
    value: int = 0


def _began(directory: str, name: str) -> None:
    with (Path(directory) / "began").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


@step(required=True)
async def first(directory: str, value: int) -> int:
    _began(directory, "first")
    return value + 1


@step(timeout=120)
async def gated(directory: str, first: int) -> int:
    """Ends when the file `go` exists."""
    _began(directory, "gated")
    go = Path(directory) / "go"
    while not go.exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.005)
    return int(first) * 10


@step(required=True, timeout=120)
async def witness(directory: str, first: int) -> int:
    """Ends when the file `go` exists; its value tells which process computed it."""
    await gated.function(directory, first)
    return os.getpid()


class MortalInputs(ProbeInputs):
    deaths: int = 0


@step(required=True)
async def mortal(directory: str, first: int, deaths: int) -> int:
    """Ends its whole process, as a lack of memory would, so many times."""
    _began(directory, "mortal")
    if sum(line.startswith("mortal ") for line in began(Path(directory))) <= deaths:
        os._exit(137)
    return int(first) * 10


@step()
async def nothing(value: int) -> int:
    return value


@step(required=True)
async def one(value: int) -> int:
    await asyncio.sleep(0.2)
    return value + 1


@step(required=True)
async def two(one: int) -> int:
    await asyncio.sleep(0.2)
    return int(one) * 2


@step(required=True)
async def three(two: int) -> int:
    await asyncio.sleep(0.2)
    return int(two) + 3


PROBE = Pipeline(
    name="probe",
    version="1",
    description="Counts what runs",
    inputs=ProbeInputs,
    steps=(first, gated),
    codec=ArtifactCodec(),
)
WITNESS = Pipeline(
    name="witness",
    version="1",
    description="Tells who computed it",
    inputs=ProbeInputs,
    steps=(first, witness),
    codec=ArtifactCodec(),
)
MORTAL = Pipeline(
    name="mortal",
    version="1",
    description="Kills its worker",
    inputs=MortalInputs,
    steps=(first, mortal),
    codec=ArtifactCodec(),
)
NOOP = Pipeline(
    name="noop",
    version="1",
    description="Computes next to nothing",
    inputs=NoInputs,
    steps=(nothing,),
    codec=ArtifactCodec(),
)
CHAIN = Pipeline(
    name="chain",
    version="1",
    description="Three steps, one after the other, that take their time",
    inputs=NoInputs,
    steps=(one, two, three),
    codec=ArtifactCodec(),
)
ON_GPU = Pipeline(
    name="on-gpu",
    version="1",
    description="Computes next to nothing, on workers of the pool gpu",
    inputs=NoInputs,
    steps=(nothing,),
    codec=ArtifactCodec(),
    pool="gpu",
)
REFERENCES = ",".join(
    f"tests.support.pipelines:{name}" for name in ("PROBE", "NOOP", "CHAIN", "WITNESS", "MORTAL")
)
"""What HEADSTART_PIPELINES must be."""


def began(directory: Path) -> list[str]:
    """The steps that began, in order, as "name pid"."""
    file = directory / "began"
    return file.read_text().splitlines() if file.exists() else []
