"""Pending runs that no worker offers, though workers offer their pipeline in another version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..domain import Orphan, RunPlan
from .keys import PartitionKeys, from_member, partition_of
from .records import encode_plan_steps
from .scripts import Scripts


class OrphanRuns:
    """Finds orphans in every partition, and queues them anew."""

    def __init__(self, scripts: Scripts, partitions: Sequence[PartitionKeys], process: str) -> None:
        """Look on behalf of this process."""
        self._scripts, self._partitions, self._process = scripts, partitions, process

    async def find(self, classes: Iterable[str], ttl: float, limit: int) -> Sequence[Orphan]:
        """Register for `ttl` seconds the classes that this process starts, and return orphans."""
        found = []
        for keys in self._partitions:
            rows = await self._scripts.orphans(
                keys,
                None,
                process=self._process,
                classes=" ".join(classes),
                ttl_us=round(ttl * 1e6),
                limit=limit,
            )
            for name, run, pipeline, inputs in rows:
                key = from_member(name.decode(errors="replace"))
                found.append(Orphan(key, run.decode(), pipeline.decode(), inputs))
        return found

    async def adopt(self, orphan: Orphan, plan: RunPlan) -> bool:
        """Queue an orphan by another plan of its inputs; return whether it still was one."""
        partition = partition_of(orphan.key, len(self._partitions))
        adopted: int = await self._scripts.adopt(
            self._partitions[partition],
            orphan.key,
            run_id=orphan.run,
            definition=plan.definition,
            digest=plan.digest,
            steps=encode_plan_steps(plan),
            inputs=plan.inputs,
        )
        return bool(adopted)
