"""How long a step that failed pauses before its next try."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from ..pipeline.step import Step

Jitter = Callable[[float], float]
"""Returns a pause of at most so many seconds."""

_DOUBLED: Final = 60
"""How often a backoff is doubled at most: no float is too small for it."""


def full_jitter(most: float) -> float:
    """Return a random pause of at most `most` seconds: steps that fail together part."""
    return random.uniform(0, most)  # noqa: S311  # no secret


def pause_after(
    step: Step, attempt: int, took: float, retry_after: float | None, jitter: Jitter
) -> float | None:
    """Return the seconds before the next try; None when there is none.

    The try of this number was the last one so far, `took` seconds after the step had begun. A
    `retry_after` that the step named counts, but only within the time that all its tries may take.
    """
    if attempt >= step.max_attempts:
        return None
    if retry_after is None:
        return jitter(step.backoff * 2 ** min(attempt - 1, _DOUBLED))
    budget = step.max_attempts * step.timeout
    return retry_after if took + retry_after < budget else None
