"""Figures that the store alone knows: what is kept and queued. Asked for when somebody looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..domain import Stats, Status
from ..errors import HeadstartError
from .figures import Figures

log = logging.getLogger(__name__)

_FRESH = 1.0
"""Seconds for which an answer is good: however many look, the store is asked once."""
_PATIENCE = 0.5
"""Seconds after which a look goes without it."""


class BacklogFigures(Collector):
    """What the store holds; nothing while it does not answer."""

    def __init__(self, ask: Callable[[], Awaitable[Stats]], limit: int) -> None:
        """Ask so; at most `limit` runs are kept."""
        self._ask = ask
        self._stats: Stats | None = None
        self._until = 0.0
        figures = Figures()
        figures.reading(
            "runs", "Runs that are kept, in the whole store.", self._counts, ("status",)
        )
        figures.reading("runs_limit", "Runs that are kept at most.", lambda: limit)
        figures.reading(
            "queue_depth",
            "Jobs that no worker has taken, in the whole store.",
            lambda: self._stats.queued_jobs if self._stats else None,
        )
        figures.reading(
            "queue_oldest_wait_seconds",
            "How long the oldest of these has been waiting.",
            lambda: self._stats.oldest_wait if self._stats else None,
        )
        self._figures = figures

    async def refresh(self) -> None:
        """Have the figures of now, or none; takes no more than half a second."""
        clock = asyncio.get_running_loop().time
        if clock() < self._until:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                self._stats = await self._ask()
        except (HeadstartError, TimeoutError) as error:
            self._stats = None
            log.debug("no figures of the store: %s", error)
        self._until = clock() + _FRESH

    def _counts(self) -> dict[tuple[str, ...], float]:
        if self._stats is None:
            return {}
        return {(status.value,): self._stats.counts.get(status, 0) for status in Status}

    def collect(self) -> Iterator[Metric]:
        """What was found when it was refreshed last."""
        return self._figures.collect()
