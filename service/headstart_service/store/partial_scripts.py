"""The Lua scripts for partial results, as typed Python methods: see `scripts`."""

from __future__ import annotations

from ..domain import Lease, PartialWrite, RunKey
from .batches import Reply
from .keys import PartitionKeys
from .script_loader import Batches, in_lua, script


class PartialScripts:
    """These scripts, ready to run."""

    def __init__(self, batches: Batches) -> None:
        """Run the scripts through `batches`."""
        self.batches = batches

    async def append(self, keys: PartitionKeys, lease: Lease, write: PartialWrite) -> int:
        """Add what a step has given. Returns how much is kept; -1 if the lease no longer holds."""
        kept: int = await self.append_partial(
            keys,
            lease.job.key,
            run_id=lease.job.run,
            attempt=lease.attempt,
            step=write.step,
            form=write.form,
            trial=write.trial,
            offset=write.offset,
            data=write.data,
        )
        return kept

    @script
    async def append_partial(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        step: str,
        form: str,
        trial: int,
        offset: int,
        data: bytes,
    ) -> Reply:
        """Add to what a running step has given, and announce it. Fenced."""
        return in_lua()

    @script
    async def read_partials(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *cursors: str | int,
        process: str,
        follow: int,
        most: int,
        tail: int,
    ) -> Reply:
        """Read what steps have given beyond the cursors; note whom to notify of more."""
        return in_lua()
