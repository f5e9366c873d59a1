"""How long connections and watches live, so that clients find new replicas."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_SPREAD: Final = 0.1
"""The share by which an age varies, as gRPC's own does: what began together ends apart."""


def age_of_one(
    age: float, spread: Callable[[float, float], float] = random.uniform
) -> float | None:
    """Return the age in seconds of one connection or watch; None, for ever, where `age` is 0."""
    return spread(1 - _SPREAD, 1 + _SPREAD) * age if age else None


def longest(age: float) -> float:
    """Return the most seconds that `age_of_one` returns."""
    return (1 + _SPREAD) * age
