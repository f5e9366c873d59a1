"""Writes the table in docs/metrics.md, the reference of every metric, from the registered ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headstart_service.api.call_limits import CallLimits
from headstart_service.api.results.near_cache import NearCache
from headstart_service.domain import Stats
from headstart_service.pipeline.registry import Registry
from headstart_service.processes.monitoring import ApiMonitoring, WorkerMonitoring
from headstart_service.telemetry.metrics.backlog import WHOLE_STORE
from headstart_service.telemetry.metrics.instruments import Description

from .markers import replaced, row
from .pins import ROOT

PAGE = ROOT / "docs" / "metrics.md"
_HEADING: Final = ("metric", "type", "labels", "process", "meaning")


async def _stats() -> Stats:
    raise NotImplementedError("a description reads no values")


def registered() -> dict[str, tuple[Description, tuple[str, ...]]]:
    """Return each metric by its name, with the processes that have it, in order of registration."""
    api, worker = ApiMonitoring(), WorkerMonitoring(Registry([]))
    api.watch_calls(CallLimits(), NearCache(0), lambda: True)
    api.watch_store(lambda: 0, _stats, 0)
    api.watch_others(None, None, None)
    none = {"busy": int, "held": int, "unavailable": int, "hung": int}
    worker.work.watch_pool(slots=0, **none)
    worker.work.watch_limits(int)
    found: dict[str, tuple[Description, tuple[str, ...]]] = {}
    for process, metrics in (("api", api.described()), ("worker", worker.described())):
        for metric in metrics:
            _, others = found.get(metric.name, (metric, ()))
            found[metric.name] = metric, (*others, process)
    return found


def page(text: str) -> str:
    """Return the page with its table as the code has it."""
    return replaced(text, _table())


def _table() -> Iterator[str]:
    yield row(*_HEADING)
    yield f"|{'---|' * len(_HEADING)}"
    for metric, processes in registered().values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        meaning = metric.text.removesuffix(WHOLE_STORE)
        meaning += " †" * (meaning != metric.text)
        yield row(f"`{metric.name}`", metric.kind, labels, ", ".join(processes), meaning)
