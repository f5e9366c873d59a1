"""The Lua script that keeps items of running steps, as a typed Python method: see `scripts`."""

from __future__ import annotations

from typing import Final

from ..domain import ItemsChunk, Lease, RunKey, StepRecord, StepState
from .batches import Reply
from .keys import PartitionKeys
from .records import encode_step_value
from .script_loader import Batches, in_lua, script

KEPT: Final = 1
"""The reply for items that were kept."""


class ItemScripts:
    """This script, ready to run."""

    def __init__(self, batches: Batches) -> None:
        """Run the script through `batches`."""
        self.batches = batches

    async def keep(self, keys: PartitionKeys, lease: Lease, chunk: ItemsChunk) -> Reply:
        """Keep a chunk. Returns 0 when the lease no longer holds, else 1 if it was kept."""
        report = StepRecord(chunk.step, StepState.RUNNING, chunk.report)
        return await self.keep_items(
            keys,
            lease.job.key,
            run_id=lease.job.run,
            attempt=lease.attempt,
            step=chunk.step,
            basis=chunk.basis,
            number=chunk.number,
            items=chunk.fragment,
            report=encode_step_value(report),
        )

    @script
    async def keep_items(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        step: str,
        basis: str,
        number: int,
        items: bytes,
        report: bytes,
    ) -> Reply:
        """Keep items of a running step, and show how far it is. Fenced."""
        return in_lua()
