"""Clocks of tests: an event loop's own, so that minutes pass at once, and one that a test sets."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STUCK = 5.0
"""Real seconds after which a loop in which nothing is left to do counts as stuck."""
_TURNS = 100_000
"""Turns after which a loop counts as one that pauses for nothing."""


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def loop_time() -> float:
    """The running event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


class _Selector(selectors.DefaultSelector):
    """Lets the loop's clock pass instead of waiting."""

    now = 0.0
    turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self.turns += 1
        if self.turns > _TURNS:
            raise RuntimeError(f"the loop turned {_TURNS} times within {self.now:g} s of its clock")
        if timeout is None:
            found = super().select(_STUCK)
            if not found:
                raise RuntimeError("nothing is left that could happen")
            return found
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on such a loop. It must use neither sockets nor threads: these take real time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
