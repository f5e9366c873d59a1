"""Counters, histograms and readings: plain numbers while a process works, metrics in a scrape.

prometheus_client's own take a lock and look their labels up each time, some 2 µs; these are a
list's or a dictionary's item. They belong to one event loop: what another thread changes must be
its alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "headstart_"
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Bounds for what takes milliseconds, and may take a minute."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Bounds for batches."""

Labels = tuple[str, ...]


class Description(NamedTuple):
    """What a metric is, whatever its values are."""

    name: str
    kind: str
    """"counter", "gauge" or "histogram"."""
    labels: Labels
    text: str
    """Its help."""


def one_of(values: Iterable[str]) -> str:
    """Return a label's values as a help text lists them."""
    *others, last = [f"`{value}`" for value in values]
    return f"{', '.join(others)} or {last}"


Read = Callable[[], float | Mapping[Any, float] | None]
"""A number; or some, by the values of their labels; or nothing."""


class Counter:
    """Counts what only ever grows, for each combination of its labels' values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = PREFIX + name, text, tuple(labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count; `labels` are the values, in their order."""
        self.values[labels] = self.values.get(labels, 0) + by

    def begin(self, combinations: Iterable[Labels]) -> None:
        """Show these from the beginning, as 0: a rate needs a sample before the first event."""
        for labels in combinations:
            self.values.setdefault(labels, 0)

    def collect(self, also: Labels | None = None, by: float = 0) -> Metric:
        """As a metric; `also` these values of its labels count more, by so many."""
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in sorted(self.values.items()):
            family.add_metric(labels, value + by if labels == also else value)
        return family


class Spread:
    """How often values fell into each of a histogram's buckets, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        """Add one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Spread) -> None:
        """Add all of another with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def number(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: each with all that is below it."""
        rows: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += more
            rows.append(("+Inf" if bound == float("inf") else repr(float(bound)), count))
        return rows


class Histogram:
    """A spread for each combination of its labels' values."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS
    ) -> None:
        self.name, self.text, self.labels = PREFIX + name, text, tuple(labels)
        self._bounds = bounds
        self.spreads: dict[Labels, Spread] = {} if labels else {(): Spread(bounds)}

    def of(self, *labels: str) -> Spread:
        """The spread of these values of its labels, in their order."""
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Spread(self._bounds)
        return spread

    def collect(self) -> Metric:
        """As a metric."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, spread in sorted(self.spreads.items()):
            family.add_metric(labels, buckets=spread.buckets(), sum_value=spread.total)
        return family


class Reading:
    """A metric that is read when metrics are collected."""

    def __init__(self, name: str, text: str, read: Read, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = PREFIX + name, text, tuple(labels)
        self.kind = "counter" if self.name.endswith("_total") else "gauge"
        self._read = read

    def collect(self) -> Metric:
        """As a metric: a counter if its name ends in `_total`, else a gauge."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.text, labels=self.labels)
        found = self._read()
        if isinstance(found, Mapping):
            for labels, value in sorted(found.items()):
                family.add_metric(labels, value)
        elif found is not None:
            family.add_metric((), found)
        return family


class Labelled(Collector):
    """What another collector gives, with one more label."""

    def __init__(self, collector: Collector, name: str, value: str) -> None:
        self._collector = collector
        self._name, self._value = name, value

    def collect(self) -> Iterator[Metric]:
        """Its metrics, with the label on every sample."""
        for metric in self._collector.collect():
            samples, metric.samples = metric.samples, []
            for sample in samples:
                labels = {self._name: self._value, **sample.labels}
                metric.samples.append(sample._replace(labels=labels))
            yield metric

    def described(self) -> Iterator[Description]:
        """Describe its metrics."""
        for metric in self._collector.collect():
            name = metric.name + "_total" * (metric.type == "counter")
            yield Description(name, metric.type, (self._name,), metric.documentation)


Instrument = Counter | Histogram | Reading


def described(metrics: Iterable[Instrument]) -> Iterator[Description]:
    """Describe each of these metrics."""
    for metric in metrics:
        yield Description(metric.name, metric.kind, metric.labels, metric.text)


class Instruments(Collector):
    """Metrics, in their order."""

    def __init__(self) -> None:
        self.metrics: list[Instrument] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A new counter of them."""
        made = Counter(name, text, labels)
        self.metrics.append(made)
        return made

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS
    ) -> Histogram:
        """A new histogram of them."""
        made = Histogram(name, text, labels, bounds)
        self.metrics.append(made)
        return made

    def reading(self, name: str, text: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Add a number that is read when metrics are collected."""
        self.metrics.append(Reading(name, text, read, labels))

    def described(self) -> Iterator[Description]:
        """Describe each of them."""
        return described(self.metrics)

    def collect(self) -> Iterator[Metric]:
        """Every one of them as it is now."""
        for metric in self.metrics:
            yield metric.collect()
