"""What a curve is: a figure whose lines are points, each the cost of one size of work."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..harness import Bench, Figure
from ..results import Line, Series


@dataclass(frozen=True)
class Curve:
    """A figure, and what its points have on the horizontal axis."""

    figure: Figure
    size: str
    """What the sizes count, with the unit."""


def trace(title: str, unit: str, samples: Mapping[float, Sequence[float]]) -> list[Line]:
    """The points of one curve: samples by size."""
    return [
        Line(title, unit, Series(f"{size:g}", list(values)), size=size)
        for size, values in samples.items()
        if values
    ]


def repeats(bench: Bench) -> int:
    """How often each point is measured: fewer times than a figure, there are many points."""
    return 3 if bench.quick else 5


@asynccontextmanager
async def part(bench: Bench, parts: int) -> AsyncIterator[Bench]:
    """Surroundings of one of so many parts: what is started for it goes with it."""
    work = Path(tempfile.mkdtemp(dir=bench.work))

    def tick(share: float) -> None:
        bench.tick(share / parts)

    async with AsyncExitStack() as stack:
        yield replace(bench, stack=stack, work=work, tick=tick)
