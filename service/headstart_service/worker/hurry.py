"""Which steps of a run callers wait for, and who must know: these are needed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ..domain import ALL_STEPS, Claim
from ..pipeline.pipeline import Pipeline

_SOONER: Final = 0.9
"""Of the time left: what is sooner, as in _step_runs.lua. Calls for the same moment differ by their
delays."""


class Hurry:
    """Says once that a step is needed at once, to all that works for it."""

    def __init__(self) -> None:
        self.is_set = False
        self._needed_us = 0
        """When the first run needs it, by the store's clock."""
        self._followers: set[Callable[[], None]] = set()

    def need(self, needed_us: int, now_us: int) -> None:
        """Note that one more run needs the step by then, 0 for at once; clearly sooner hurries it.

        Both are times of the store's clock.
        """
        if not self._needed_us:
            self._needed_us = needed_us
        if needed_us - now_us < _SOONER * (self._needed_us - now_us) or not needed_us:
            self.set()

    def set(self) -> None:
        """Say it. Does nothing the second time."""
        if not self.is_set:
            self.is_set = True
            for follower in list(self._followers):
                follower()

    @contextmanager
    def followed(self, follower: Callable[[], None]) -> Iterator[None]:
        """Call `follower` when it is said, or now if it was, while the context is open."""
        self._followers.add(follower)
        if self.is_set:
            follower()
        try:
            yield
        finally:
            self._followers.discard(follower)


class AwaitedSteps:
    """The steps of one run for which callers wait."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._pipeline: Pipeline | None = None
        self._needed_us = self._at_us = 0
        self._followers: list[tuple[str, Callable[[], None]]] = []

    def begin(self, pipeline: Pipeline, claim: Claim) -> None:
        """Note the run. It may have waiting callers already."""
        self._pipeline = pipeline
        self._needed_us, self._at_us = claim.needed_us, claim.at_us
        self.ask(claim.awaited)

    def ask(self, steps: Iterable[str]) -> None:
        """Hurry these steps, and those that they need: a caller waits for them."""
        self._wanted.update(steps)
        for name, follower in list(self._followers):
            if self.has(name):
                follower()

    def has(self, name: str) -> bool:
        """Whether a caller waits for the step, or for one that needs it."""
        if ALL_STEPS in self._wanted:
            return True
        if not self._wanted or self._pipeline is None:
            return False
        return not self._wanted.isdisjoint({name} | self._pipeline.dependants([name]))

    @contextmanager
    def followed(self, name: str, follower: Callable[[], None]) -> Iterator[None]:
        """Call `follower` once a caller waits for the step, or now if one does already.

        It may be called again. Nothing calls it once the context has ended.
        """
        entry = name, follower
        self._followers.append(entry)
        if self.has(name):
            follower()
        try:
            yield
        finally:
            self._followers.remove(entry)

    @contextmanager
    def hurrying(self, name: str, hurry: Hurry) -> Iterator[None]:
        """Set `hurry` once a caller waits for the step, while the context is open.

        Also if the run needs it sooner than those that share it did.
        """
        hurry.need(self._needed_us, self._at_us)
        with self.followed(name, hurry.set):
            yield
