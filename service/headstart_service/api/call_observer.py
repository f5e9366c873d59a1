"""What the API reports to its watchers: metrics, the live page. They change nothing.

Watchers return at once: they are called between a caller and its answer. Of what callers send they
receive nothing but the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..base.metric_labels import ResultsOutcome
from ..domain import Outcome

Ended = Callable[[str, float], None]
"""Called when a call of one method has ended, with its gRPC code and how many seconds it took."""


def unheard(_: str, __: float) -> None:
    """Do nothing: no watcher is there."""


class CallObserver(Protocol):
    """Watches calls."""

    def ready(self, seconds: float, complete: bool) -> None:  # noqa: FBT001  # keywords cost time here
        """A GetResults was answered from memory alone; such a call reports nothing else.

        With `complete` its result is READY, else PARTIAL. Most calls are such: some 100 µs each.
        """
        ...

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call, or a stream, of this method has ended with this gRPC code's name."""
        ...

    def results(self, outcome: ResultsOutcome, seconds: float) -> None:
        """Any other GetResults had this outcome."""
        ...

    def started(self, outcome: Outcome) -> None:
        """A start was accepted."""
        ...

    def damaged(self) -> None:
        """A record that no caller could read was found."""
        ...


class CallObservers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[CallObserver] = ()) -> None:
        self._observers = tuple(observers)

    def ready(self, seconds: float, complete: bool) -> None:  # noqa: FBT001  # as above
        """As `CallObserver.ready`."""
        for observer in self._observers:
            observer.ready(seconds, complete)

    def ended(self, method: str, code: str, seconds: float) -> None:
        """As `CallObserver.ended`."""
        for observer in self._observers:
            observer.ended(method, code, seconds)

    def results(self, outcome: ResultsOutcome, seconds: float) -> None:
        """As `CallObserver.results`."""
        for observer in self._observers:
            observer.results(outcome, seconds)

    def started(self, outcome: Outcome) -> None:
        """As `CallObserver.started`."""
        for observer in self._observers:
            observer.started(outcome)

    def damaged(self) -> None:
        """As `CallObserver.damaged`."""
        for observer in self._observers:
            observer.damaged()
