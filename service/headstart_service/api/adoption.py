"""Adopts runs that a rolling update has left behind.

A run is computed by workers whose pipeline has the definition that it was started with. When the
last worker and the last API process with that definition have gone, an API process plans the run
anew by its own. So an update in any order, and a rollback, loses no run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from ..domain import Orphan, RunPlan
from ..domain.errors import InvalidRequest, RecordDamaged, StoreUnavailable
from ..domain.log_fields import fields
from ..pipeline.registry import Registry

log = logging.getLogger(__name__)

_EVERY: Final = 2.0
"""Seconds between two searches for orphans."""
_SHOWN: Final = 10.0
"""Seconds that other processes believe what this one starts."""
_AT_ONCE: Final = 1000
"""Orphans of each class that one search adopts."""


class OrphanStore(Protocol):
    """The part of the store that knows orphans. Its methods raise StoreUnavailable."""

    async def orphans(self, classes: Iterable[str], ttl: float, limit: int) -> Sequence[Orphan]:
        """Show which classes this process starts; find runs that no process serves."""
        ...

    async def adopt(self, orphan: Orphan, plan: RunPlan) -> bool:
        """Queue an orphan by another plan; False when it is none any more."""
        ...


class Adoption:
    """Shows what this process starts, and adopts orphans of its pipelines."""

    def __init__(self, store: OrphanStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._refused: set[str] = set()

    async def run(self) -> None:
        """Look for orphans until cancelled; then others adopt what this process has started."""
        try:
            while True:
                try:
                    await self.look()
                except StoreUnavailable as error:
                    log.debug("no orphans: %s", error)
                await asyncio.sleep(_EVERY)
        finally:
            with suppress(StoreUnavailable):
                await self._store.orphans((), 0, 1)

    async def look(self) -> None:
        """Adopt the orphans of now. Raises StoreUnavailable."""
        classes = [pipeline.runs_class for pipeline in self._registry]
        orphans = await self._store.orphans(classes, _SHOWN, _AT_ONCE)
        self._refused &= {orphan.run for orphan in orphans}
        for orphan in orphans:
            plan = self._plan(orphan)
            if plan is not None and await self._adopted(orphan, plan):
                attributes = fields(
                    "run.adopted", orphan.key, run=orphan.run, pipeline=orphan.pipeline
                )
                log.info(
                    "%s adopted: no process served its definition", orphan.key, extra=attributes
                )

    async def _adopted(self, orphan: Orphan, plan: RunPlan) -> bool:
        try:
            return await self._store.adopt(orphan, plan)
        except RecordDamaged as error:
            log.warning("%s is not adopted: %s", orphan.key, error)
            return False

    def _plan(self, orphan: Orphan) -> RunPlan | None:
        """Its plan by this process's definition; None, and a log line, if its inputs do not fit."""
        pipeline = self._registry.find(orphan.pipeline)
        if pipeline is None or orphan.run in self._refused:
            return None
        try:
            return pipeline.plan(json.loads(orphan.inputs), "inputs")
        except Exception as error:  # noqa: BLE001  # whatever an author's validator or `when` raises
            self._refused.add(orphan.run)
            reason = error if isinstance(error, InvalidRequest) else type(error).__name__
            log.warning(
                "%s stays queued: its inputs are of another version: %s", orphan.key, reason
            )
            return None
