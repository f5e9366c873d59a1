"""Passes a run's reported steps to it: steps whose results callers have handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Receiver = Callable[[Sequence[str]], None]


class ReportedSteps:
    """Passes a run's reported steps to its runner. A missed report costs recomputation alone."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None

    @contextmanager
    def receiving(self, receiver: Receiver) -> Iterator[None]:
        """Pass the names of reported steps to `receiver`, until this is left."""
        self._receiver = receiver
        try:
            yield
        finally:
            self._receiver = None

    def pass_on(self, steps: Sequence[str]) -> None:
        """Pass on these steps, which callers have reported."""
        if self._receiver is not None:
            self._receiver(steps)
