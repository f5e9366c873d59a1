"""What was measured, and what it says: series, ratios, noise, verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

TIMES = "\N{MULTIPLICATION SIGN}"
_MAD_TO_SIGMA = 1.4826
"""Makes a median absolute deviation comparable to a normal distribution's standard deviation."""


class Verdict(StrEnum):
    """How a line compares with its target."""

    REACHED = "reached"
    WITHIN_NOISE = "within noise"
    """Missed, but by less than the same measurement varied by in this run."""
    MISSED = "MISSED"
    INFORMATION = ""
    """There is no target."""


@dataclass(frozen=True)
class Series:
    """One thing's samples, one a repetition."""

    name: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """How far samples typically lie from their median, as a share of it."""
        return noise(self.samples) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Target:
    """A bound that a ratio, or a figure that has no reference, must reach."""

    bound: float
    at_least: bool

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """More is better, and this much must be."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Less is better, and it may be this much."""
    return Target(bound, at_least=False)


@dataclass(frozen=True)
class Line:
    """One line of the table: a contender, what it is compared with, and what must come out."""

    title: str
    unit: str
    contender: Series
    reference: Series | None = None
    target: Target | None = None
    note: str = ""
    size: float | None = None
    """On a curve: how much there was to do. Lines of one title and unit are one curve's points."""

    @property
    def values(self) -> Sequence[float]:
        """What the target is about, one a repetition: the ratios, else the contender's samples."""
        if self.reference is None:
            return self.contender.samples
        # Pairs of one repetition: what slows the machine down for a while slows both.
        pairs = zip(self.contender.samples, self.reference.samples, strict=True)
        return [ours / theirs for ours, theirs in pairs]

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def noise(self) -> float:
        """How far the value of one repetition typically lies from the median of all."""
        return noise(self.values)

    @property
    def verdict(self) -> Verdict:
        if self.target is None:
            return Verdict.INFORMATION
        if self.target.reached(self.value):
            return Verdict.REACHED
        best = self.value + (self.noise if self.target.at_least else -self.noise)
        return Verdict.WITHIN_NOISE if self.target.reached(best) else Verdict.MISSED


@dataclass(frozen=True)
class Result:
    """What a figure gave: its lines, and why there are none, or not all of them."""

    figure: str
    title: str
    lines: Sequence[Line] = ()
    unavailable: str = ""
    seconds: float = 0.0


def noise(samples: Sequence[float]) -> float:
    """The samples' standard deviation, estimated so that a few outliers do not count."""
    middle = statistics.median(samples)
    return _MAD_TO_SIGMA * statistics.median(abs(sample - middle) for sample in samples)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that is not below `percent` of all."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
