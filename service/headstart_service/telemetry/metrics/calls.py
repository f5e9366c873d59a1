"""Figures of an API process's calls. Satisfies `api.call_observer.CallObserver`.

A ready GetResults is counted in one list and nowhere else: what follows from it for the other
metrics is added when they are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...base.metric_labels import ResultsOutcome
from ...base.service_methods import METHODS, STREAMS
from ...domain import Outcome
from .instruments import (
    SECONDS,
    Counter,
    Description,
    Histogram,
    Spread,
    described,
    one_of,
)

_CODES = ("OK", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED")
"""Told from the beginning, as 0: those that alerts look at. The others are callers' doing."""


class CallMetrics(Collector):
    """Counts calls."""

    def __init__(self, damaged: Callable[[], None]) -> None:
        """Tell `damaged` of each record that no caller could read."""
        self.damaged = damaged
        self._requests = Counter(
            "requests_total", "Calls and streams that have ended.", ("method", "code")
        )
        self._requests.begin((method, code) for method in METHODS for code in _CODES)
        self._durations = Histogram(
            "request_duration_seconds",
            "Time of a call in its handler, with its waits. Streams have none.",
            ("method",),
        )
        self._results = Histogram(
            "results_duration_seconds",
            "Time of a GetResults in its handler: `ready` at once, `waited` and then complete, "
            "`partial` (a step unfinished, failed or skipped), or a `missing` key.",
            ("outcome",),
        )
        for outcome in ResultsOutcome:
            self._results.of(outcome)
        self._starts = Counter("starts_total", f"Accepted starts: {one_of(Outcome)}.", ("outcome",))
        self._starts.begin((outcome.value,) for outcome in Outcome)
        self._whole, self._in_part = Spread(SECONDS), Spread(SECONDS)

    def ready(self, seconds: float, complete: bool) -> None:  # noqa: FBT001  # keywords cost time here
        """Count a GetResults that was answered from memory."""
        spread = self._whole if complete else self._in_part
        spread.counts[bisect_left(SECONDS, seconds)] += 1
        spread.total += seconds

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._requests.add(method, code)
        if method not in STREAMS:
            self._durations.of(method).note(seconds)

    def results(self, outcome: ResultsOutcome, seconds: float) -> None:
        """Count what a GetResults found."""
        self._results.of(outcome).note(seconds)

    def started(self, outcome: Outcome) -> None:
        """Count an accepted start."""
        self._starts.add(outcome.value)

    def described(self) -> Iterator[Description]:
        """Describe its metrics."""
        return described((self._requests, self._starts, self._durations, self._results))

    def collect(self) -> Iterator[Metric]:
        """The metrics, with what the ready ones add to them."""
        ready = self._whole.number + self._in_part.number
        yield self._requests.collect(also=("GetResults", "OK"), by=ready)
        yield self._starts.collect()
        yield _with(self._durations, ("GetResults", self._whole), ("GetResults", self._in_part))
        yield _with(self._results, ("ready", self._whole), ("partial", self._in_part))


def _with(histogram: Histogram, *more: tuple[str, Spread]) -> Metric:
    """The metric of a histogram with one label, and of these that are kept elsewhere."""
    whole = Histogram("", histogram.text, histogram.labels)
    whole.name = histogram.name
    for labels, spread in histogram.spreads.items():
        whole.of(*labels).add(spread)
    for label, spread in more:
        whole.of(label).add(spread)
    return whole.collect()
