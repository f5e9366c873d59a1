"""Write all metrics of a process, and of its child, as Prometheus's text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_HELP = "# HELP "


class _One(Collector):
    """One metric as a collector, which is what can be rendered."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


class Exposition:
    """Renders collectors, which are read at that moment."""

    def __init__(
        self,
        collectors: Sequence[Collector],
        *,
        refresh: Callable[[], Awaitable[None]] | None = None,
        child: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """Wait for `refresh` before; ask `child` for the text of another process."""
        self._collectors = collectors
        self._refresh = refresh
        self._child = child
        self._turn = asyncio.Lock()

    async def text(self) -> str:
        """Return all of it. One scrape at a time, which lets calls run after each metric."""
        async with self._turn:
            child = asyncio.ensure_future(self._child()) if self._child else None
            try:
                if self._refresh is not None:
                    await self._refresh()
                parts = []
                for collector in self._collectors:
                    for metric in collector.collect():
                        parts.append(generate_latest(_One(metric)).decode())
                        await asyncio.sleep(0)
                own = "".join(parts)
                return merged([own, await child]) if child else own
            finally:
                if child is not None:
                    child.cancel()


def merged(texts: Iterable[str]) -> str:
    """Texts as one, in which each metric stands once with the samples of all."""
    heads: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        for block in text.split(_HELP)[1:]:
            head, of_type, rest = block.split("\n", 2)
            name = head.partition(" ")[0]
            heads.setdefault(name, f"{_HELP}{head}\n{of_type}\n")
            samples.setdefault(name, []).append(rest)
    return "".join(head + "".join(samples[name]) for name, head in heads.items())
