"""The scripts of the ledger alone, as typed methods: see `scripts`."""

from __future__ import annotations

from ..domain import RunKey
from .batches import Reply
from .keys import PartitionKeys
from .script_loader import Batches, in_lua, script


class AccountingScripts:
    """Scripts that only count."""

    def __init__(self, batches: Batches) -> None:
        """Run the scripts through `batches`."""
        self.batches = batches

    @script
    async def count_stopped(
        self, keys: PartitionKeys, run: RunKey | None, *, run_id: str, work: str
    ) -> Reply:
        """Count the work of steps whose results no run takes. Adds at every call."""
        return in_lua()
