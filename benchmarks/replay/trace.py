"""What users do, as traces: made from distributions and a seed, so that each replay is the same.

Times are in seconds of the replay, which are `SCALE` times shorter than people's.

| what | how it is distributed |
|---|---|
| tasks | a share of forms, reports and games each, by the shape; each is a pipeline of its own |
| computing one | 0.6, 1.8 and 4.5 s of processor time |
| thinking | log-normal around 45, 60 and 90 s, sigma 0.35, cut to 30 to 120 s |
| arrivals | a share by the shape in three bursts of two seconds each, all others evenly |
| never come back | 30 % |
| what a start declares | the time that its kind of task usually takes, wrong by the shape's sigma |

| shape | what differs |
|---|---|
| mixed | 60 % forms, 30 % reports, 10 % games; one half in bursts; sigma 0.2 |
| even | the same tasks, none in bursts; sigma 0.2 |
| heavy | 30 % forms, 40 % reports, 30 % games; one half in bursts; sigma 0.4 |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SCALE = 30
WINDOW = 120 / SCALE
"""In which users arrive."""
SHORTEST, LONGEST = 30 / SCALE, 120 / SCALE
_SIGMA = 0.35
_GONE = 0.3
_BURSTS, _BURST = 3, 2 / SCALE


@dataclass(frozen=True)
class Kind:
    """A kind of task."""

    pipeline: str
    cost: float
    """Processor seconds of a run: what computing it live takes, too."""
    thinking: float
    """The median."""


KINDS = (
    Kind("form", 0.6 / SCALE, 45 / SCALE),
    Kind("report", 1.8 / SCALE, 60 / SCALE),
    Kind("game", 4.5 / SCALE, 90 / SCALE),
)


@dataclass(frozen=True)
class Shape:
    """A kind of trace."""

    name: str
    shares: tuple[float, float, float]
    """Of the kinds of tasks."""
    bursty: float
    error: float


SHAPES = (
    Shape("mixed", (0.6, 0.3, 0.1), 0.5, 0.2),
    Shape("even", (0.6, 0.3, 0.1), 0.0, 0.2),
    Shape("heavy", (0.3, 0.4, 0.3), 0.5, 0.4),
)


@dataclass(frozen=True)
class User:
    """One user, who begins a task and maybe submits it."""

    arrives: float
    kind: Kind
    thinks: float
    declares: float
    """In how long the start says that the results will be needed."""
    returns: bool


def made(load: float, shape: Shape, seed: int) -> Sequence[User]:
    """As many users as need `load` times what one core can compute while they arrive."""
    dice = random.Random(f"{shape.name} {seed}")
    bursts = [dice.uniform(0, WINDOW - _BURST) for _ in range(_BURSTS)]
    users: list[User] = []
    work = 0.0
    while work < load * WINDOW:
        (kind,) = dice.choices(KINDS, shape.shares)
        arrives = dice.uniform(0, WINDOW)
        if dice.random() < shape.bursty:
            arrives = dice.choice(bursts) + dice.uniform(0, _BURST)
        thinks = min(max(kind.thinking * dice.lognormvariate(0, _SIGMA), SHORTEST), LONGEST)
        declares = kind.thinking * dice.lognormvariate(0, shape.error)
        users.append(User(arrives, kind, thinks, declares, dice.random() >= _GONE))
        work += kind.cost
    return sorted(users, key=lambda user: user.arrives)
