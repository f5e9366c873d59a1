"""What users do, as a trace: made from distributions and a seed, so that each replay is the same.

Times are in seconds of the replay, which are `SCALE` times shorter than people's.

| what | how it is distributed |
|---|---|
| tasks | 60 % a form, 30 % a report, 10 % a game; each is a pipeline of its own |
| computing one | 0.6, 1.8 and 4.5 s of processor time |
| thinking | log-normal around 45, 60 and 90 s, sigma 0.35, cut to 30 to 120 s |
| arrivals | one half evenly, the other in three bursts of two seconds each |
| never come back | 30 % |
| what a start declares | the time that its kind of task usually takes, wrong by sigma 0.2 |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SCALE = 30
WINDOW = 120 / SCALE
"""In which users arrive."""
SHORTEST, LONGEST = 30 / SCALE, 120 / SCALE
_SIGMA, _ERROR = 0.35, 0.2
_GONE = 0.3
_BURSTS, _BURST = 3, 2 / SCALE


@dataclass(frozen=True)
class Kind:
    """A kind of task."""

    pipeline: str
    share: float
    cost: float
    """Processor seconds of a run: what computing it live takes, too."""
    thinking: float
    """The median."""


KINDS = (
    Kind("form", 0.6, 0.6 / SCALE, 45 / SCALE),
    Kind("report", 0.3, 1.8 / SCALE, 60 / SCALE),
    Kind("game", 0.1, 4.5 / SCALE, 90 / SCALE),
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


def made(load: float, seed: int) -> Sequence[User]:
    """As many users as need `load` times what one core can compute while they arrive."""
    dice = random.Random(seed)
    bursts = [dice.uniform(0, WINDOW - _BURST) for _ in range(_BURSTS)]
    users: list[User] = []
    work = 0.0
    while work < load * WINDOW:
        (kind,) = dice.choices(KINDS, [kind.share for kind in KINDS])
        arrives = dice.uniform(0, WINDOW)
        if dice.random() < 1 / 2:
            arrives = dice.choice(bursts) + dice.uniform(0, _BURST)
        thinks = min(max(kind.thinking * dice.lognormvariate(0, _SIGMA), SHORTEST), LONGEST)
        declares = kind.thinking * dice.lognormvariate(0, _ERROR)
        users.append(User(arrives, kind, thinks, declares, dice.random() >= _GONE))
        work += kind.cost
    return sorted(users, key=lambda user: user.arrives)
