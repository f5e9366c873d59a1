"""Pipelines of items for tests with real workers; what began is noted in a directory."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from headstart_service.sdk import Item, Pipeline, StepFailed, step


class Carriers(BaseModel):
    directory: str
    carriers: list[str]


def noted(directory: str, item: str) -> None:
    with (Path(directory) / "began").open("a") as file:
        file.write(f"{item} {os.getpid()}\n")


async def rate_of(directory: str, carrier: str) -> int:
    noted(directory, carrier)
    if carrier.startswith("bad"):
        raise StepFailed("carrier away", retry=False)
    if carrier.startswith("held"):
        while not (Path(directory) / "open").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.01)
    return len(carrier)


@step(each="carriers", timeout=60)
async def rates(directory: str, carriers: str) -> int:
    """On the loop."""
    return await rate_of(directory, carriers)


@step()
async def cheapest(rates: list[Item[int]] | None) -> int:
    return min((each.value for each in rates or [] if each.value is not None), default=-1)


@step(each="carriers", runs_on="thread", parallel=3)
def in_threads(carriers: str) -> str:
    time.sleep(0.01)
    return carriers.upper()


@step(each="in_threads", runs_on="process")
def in_processes(in_threads: Item[str]) -> str:
    return f"{in_threads.value}!"


@step(each="carriers", memo=True)
async def memoised(directory: str, carriers: str) -> str:
    noted(directory, f"memo-{carriers}")
    return carriers


CARRIERS = Pipeline("carriers", "1", "Rates of carriers", Carriers, (rates, cheapest))
EVERYWHERE = Pipeline(
    "everywhere", "1", "Items in all places", Carriers, (in_threads, in_processes, memoised)
)
REFERENCES = "tests.support.item_pipelines:CARRIERS,tests.support.item_pipelines:EVERYWHERE"


def began(directory: Path) -> list[tuple[str, int]]:
    """The items that began, in order, each with its worker's process."""
    lines = (directory / "began").read_text().splitlines() if (directory / "began").exists() else []
    return [(name, int(pid)) for name, pid in (line.split() for line in lines)]
