"""What a run under way is told of: steps whose results callers have handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Hearer = Callable[[Sequence[str]], None]


class Reports:
    """One run's. Who hears of reports tells it; nothing is lost that is not told, only work."""

    def __init__(self) -> None:
        self._hearer: Hearer | None = None

    @contextmanager
    def told_to(self, hearer: Hearer) -> Iterator[None]:
        """Tell `hearer` the names of reported steps, until this is left."""
        self._hearer = hearer
        try:
            yield
        finally:
            self._hearer = None

    def tell(self, steps: Sequence[str]) -> None:
        """Callers have reported these steps of the run."""
        if self._hearer is not None:
            self._hearer(steps)
