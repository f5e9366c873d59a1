"""Requests in batches, kept in Redis for all workers. Satisfies `domain.MessageBatches`.

They are in the first partition, as what is known of providers. Their hashes live for a day longer
than the API works on a batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..domain import BatchedRequest, BatchOwner, RunKey
from .batches import Reply
from .connect import Client
from .keys import PartitionKeys
from .script_loader import Batches, in_lua, script
from .store_observer import StoreObserver
from .store_rules import StoreRules
from .worker_batches import worker_batches

BUDGET = 1.0
"""Seconds for one reply."""
_TTL_MS: Final = 48 * 3600 * 1000


class MessageBatchScripts:
    """The Lua scripts, ready to run in the first partition. `run` is None."""

    def __init__(self, batches: Batches) -> None:
        """Run the scripts through `batches`."""
        self.batches = batches

    @script
    async def take_message_batch(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        requests: str,
        id: str,  # noqa: A002  # the script's name for it
        owner: str,
        ttl_ms: int,
        create: int,
    ) -> Reply:
        """Give a request to its next owner, or note a new one."""
        return in_lua()

    @script
    async def keep_message_batch(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        requests: str,
        id: str,  # noqa: A002
        owner: str,
        next_owner: str,
        batch: str,
        ttl_ms: int,
    ) -> Reply:
        """Note the batch of a request, and its owner."""
        return in_lua()

    @script
    async def forget_message_batch(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        requests: str,
        id: str,  # noqa: A002
        owner: str,
    ) -> Reply:
        """Forget a request."""
        return in_lua()


class RedisMessageBatches:
    """Keeps the requests of one of the workers that share a store."""

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        *,
        budget: float = BUDGET,
        observer: StoreObserver | None = None,
    ) -> None:
        """Give up on Redis after `budget` seconds."""
        self._batches = worker_batches(client, rules, budget=budget, observer=observer)
        self._scripts = MessageBatchScripts(self._batches)
        self._keys = rules.keys(client)[0]

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    async def take(
        self, new: BatchedRequest, owner: BatchOwner, *, create: bool
    ) -> BatchedRequest | None:
        """As `domain.MessageBatches`."""
        found = await self._scripts.take_message_batch(
            self._keys,
            None,
            requests=self._keys.message_batches(new.digest),
            id=new.id,
            owner=_line(owner),
            ttl_ms=_TTL_MS,
            create=int(create),
        )
        if not found:
            return None
        name, batch = found
        return replace(new, id=name.decode(), batch=batch.decode())

    async def keep(self, request: BatchedRequest, owner: BatchOwner, *, then: BatchOwner) -> bool:
        """As `domain.MessageBatches`."""
        kept = await self._scripts.keep_message_batch(
            self._keys,
            None,
            requests=self._keys.message_batches(request.digest),
            id=request.id,
            owner=_line(owner),
            next_owner=_line(then),
            batch=request.batch,
            ttl_ms=_TTL_MS,
        )
        return bool(kept)

    async def forget(self, request: BatchedRequest, owner: BatchOwner) -> bool:
        """As `domain.MessageBatches`."""
        forgotten = await self._scripts.forget_message_batch(
            self._keys,
            None,
            requests=self._keys.message_batches(request.digest),
            id=request.id,
            owner=_line(owner),
        )
        return bool(forgotten)


def _line(owner: BatchOwner) -> str:
    return f"{owner.run} {owner.attempt}"
