"""Headstart and its peers in turn, and the lines that come of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..harness import Bench, Measure
from ..results import Line, Series, Target
from .contenders import Contender, Driver, Field

Of = Callable[[Driver, str], Awaitable[float]]
"""Measures what a driver does; the name tells the contenders apart."""


@dataclass(frozen=True)
class Comparison:
    """What was measured of Headstart and of everyone who stayed to the end."""

    ours: Sequence[float]
    theirs: Sequence[tuple[Contender, Sequence[float]]]

    def lines(
        self, title: str, unit: str, target: Target, note: Callable[[Contender], str] | None = None
    ) -> list[Line]:
        """A line for each."""
        return [
            Line(
                f"{title} · {contender.peer.name}",
                unit,
                Series("Headstart", self.ours),
                Series(contender.peer.name, samples),
                target if contender.peer.measured_against else None,
                "; ".join(
                    filter(None, (note(contender) if note else "", contender.driver.versions))
                ),
            )
            for contender, samples in self.theirs
        ]


async def compare(bench: Bench, headstart: Driver, field: Field, measure: Of) -> Comparison:
    """Measure all in turn. Who fails is named and left alone from then on."""
    failed: set[str] = set()

    def guarded(contender: Contender) -> Measure:
        async def sample() -> float:
            name = contender.peer.name
            if name in failed:
                return math.nan
            try:
                return await measure(contender.driver, name)
            except Exception as error:  # noqa: BLE001  # named; the others are measured
                failed.add(name)
                field.gives_up(contender.peer, error)
                return math.nan

        return sample

    ours, *theirs = await bench.alternate(
        lambda: measure(headstart, "Headstart"), *map(guarded, field.contenders)
    )
    pairs = zip(field.contenders, theirs, strict=True)
    return Comparison(ours, [pair for pair in pairs if pair[0].peer.name not in failed])
