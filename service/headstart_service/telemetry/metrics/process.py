"""Figures of a process as such: its memory, its build, how late its loop is."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .instruments import Description, Instruments, Labelled

API, WORKER = "api", "worker"
_TICK = 0.25
"""Seconds between two measurements of the loop's lag."""


class ProcessMetrics(Collector):
    """Of the process of this name, of which a pod may have two."""

    def __init__(self, process: str) -> None:
        own = Instruments()
        build = (process, version("headstart"), platform.python_version())
        own.reading(
            "build_info",
            "1, with what runs in its labels.",
            lambda: {build: 1.0},
            ("process", "version", "python_version"),
        )
        self._lag = own.histogram(
            "event_loop_lag_seconds",
            "Delay of the event loop, sampled four times a second.",
            ("process",),
        ).of(process)
        self._own = own
        self._standard = Labelled(ProcessCollector(registry=None), "process", process)

    async def watch_loop(self) -> None:
        """See for ever how late the loop is."""
        clock = time.perf_counter
        while True:
            due = clock() + _TICK
            await asyncio.sleep(_TICK)
            self._lag.note(max(clock() - due, 0.0))

    def described(self) -> Iterator[Description]:
        """Describe its own metrics, and those that Prometheus's clients have in common."""
        yield from self._own.described()
        yield from self._standard.described()

    def collect(self) -> Iterator[Metric]:
        """Its own metrics, and those that Prometheus's clients have in common."""
        yield from self._own.collect()
        yield from self._standard.collect()
