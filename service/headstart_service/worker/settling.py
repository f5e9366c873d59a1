"""Holds a run's steps back until their inputs have been stable for a while.

A step with `settle` begins so long after its digest first appeared under the key, by the store's
clock. It begins at once when a caller waits for it, or when it is under way already.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from ..domain import Claim
from ..pipeline.pipeline import Pipeline
from ..pipeline.step import Step
from .hurry import AwaitedSteps

_EARLY: Final = 1000
"""Runs that this worker has just claimed, or is about to, for which callers wait already."""


class Settling:
    """Says how long each step of one run has still to wait."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """How long the run has waited for nothing else, at most."""
        self.awaited = AwaitedSteps()
        """These need not settle."""
        self._claim: Claim | None = None

    def begin(
        self,
        claim: Claim,
        pipeline: Pipeline,
        now_us: Callable[[], int],
        is_under_way: Callable[[Step], bool],
    ) -> None:
        """Hold back steps of this run. `now_us` is the store's clock."""
        self._claim = claim
        self._now_us = now_us
        self._is_under_way = is_under_way
        self.awaited.begin(pipeline, claim)

    def left(self, step: Step) -> float:
        """Return the seconds that the step has still to wait; 0 when it may begin."""
        if not step.settle or self._claim is None or self.awaited.has(step.name):
            return 0.0
        since_us = self._claim.since.get(step.name, self._claim.at_us)
        left = step.settle - (self._now_us() - since_us) / 1e6
        if left <= 0 or self._is_under_way(step):
            return 0.0
        return min(left, step.settle)  # the store's clock may have been set back

    async def over(self, step: Step) -> None:
        """Return when the step may begin."""
        began = time.monotonic()
        news = asyncio.Event()
        with self.awaited.followed(step.name, news.set):
            while (left := self.left(step)) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await news.wait()
        self.seconds = max(self.seconds, time.monotonic() - began)


class EarlyWaits:
    """Keeps what callers ask of runs whose claim has not arrived here yet."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, set[str]] = OrderedDict()

    def keep(self, run: str, steps: Iterable[str]) -> None:
        """Keep that a caller waits for these steps of the run with this id."""
        self._steps.setdefault(run, set()).update(steps)
        if len(self._steps) > _EARLY:
            self._steps.popitem(last=False)

    def take(self, run: str) -> set[str]:
        """Return and forget the steps that are kept of a run."""
        return self._steps.pop(run, set())
