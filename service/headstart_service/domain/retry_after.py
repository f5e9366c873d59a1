"""Compute the delay before a refused caller may retry."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_SHORTEST: Final = 0.1
_LONGEST: Final = 60.0


def retry_after(
    backlog: int,
    ended: int,
    seconds: float,
    spread: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return the seconds after which a backlog will be gone, or a good part of it.

    Lately so many runs have `ended` within so many `seconds`. The delay is not the moment at which
    the first place is free: every refused caller gets the same answer. Nor is it the same moment
    for all of them, or they would all be back at once.
    """
    whole = backlog * seconds / max(ended, 1)
    return min(max(spread(whole / 2, whole), _SHORTEST), _LONGEST)
