"""The Lua scripts that share providers among workers, as typed Python methods: see `scripts`."""

from __future__ import annotations

from ..domain import RunKey
from .batches import Reply
from .keys import PartitionKeys
from .script_loader import Batches, in_lua, script


class ProviderScripts:
    """These scripts, ready to run in the first partition. `run` is None: they belong to no run."""

    def __init__(self, batches: Batches) -> None:
        """Run the scripts through `batches`."""
        self.batches = batches

    @script
    async def take_permits(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *asks: str | int,
        name: str,
        state: str,
        under_way: str,
        askers: str,
        turns: str,
        index: str,
        budgets: str,
        over: str,
        worker: str,
        lease_us: int,
        calls: int,
        tokens: int,
        concurrency: int,
    ) -> Reply:
        """Grant permits to call a provider, as far as its limits allow; else return the wait."""
        return in_lua()

    @script
    async def settle_permit(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        state: str,
        under_way: str,
        budgets: str,
        lease: str,
        outcome: str,
        ending: str,
        namespace: str,
        granted: int,
        retry_us: int,
        estimate: int,
        used: int,
        cached: int,
        calls: int,
    ) -> Reply:
        """Free a permit, and note what its call shows of the provider."""
        return in_lua()

    @script
    async def providers(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        index: str,
        states: str,
        over: str,
    ) -> Reply:
        """Read what is known of each provider, and which namespaces are over their budgets."""
        return in_lua()
