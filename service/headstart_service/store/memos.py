"""Keep results of memoised steps in Redis: bounded, with a TTL, separate for each namespace."""

from __future__ import annotations

import hashlib
import logging

from ..base.metric_labels import MemoLookup
from ..domain.errors import CapacityExhausted, StoreUnavailable
from .connect import Client
from .keys import PartitionKeys, memo_name, memo_partition
from .scripts import Scripts
from .store_observer import StoreObserver, Unwatched
from .store_rules import StoreRules
from .worker_batches import worker_batches

log = logging.getLogger(__name__)

BUDGET = 0.25
"""Seconds for one reply: a step does not wait longer for a memo."""
_SEAL = 16
"""Bytes in front of a result: a checksum of its name and content."""


class RedisMemos:
    """Satisfies `worker.ports.MemoStore`: a Redis that is away, or full, remembers nothing."""

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        *,
        ttl: float,
        budget: float = BUDGET,
        observer: StoreObserver | None = None,
    ) -> None:
        """Keep memos for `ttl` seconds, as many as the rules allow."""
        self._observer = observer or Unwatched()
        self._batches = worker_batches(client, rules, budget=budget, observer=self._observer)
        self._scripts = Scripts(self._batches)
        self._rules = rules
        self._ttl_ms = round(ttl * 1000)
        self._partitions = rules.keys(client)

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    async def memo_get(self, namespace: str, digest: str) -> bytes | None:
        """Return the result if it exists and is whole; count misses and damaged ones."""
        keys, name = self._place(namespace, digest)
        try:
            found = await self._scripts.memo_get(
                keys, None, entry=keys.memo_prefix + name, index=keys.memos, name=name
            )
        except StoreUnavailable:
            self._observer.looked(MemoLookup.AWAY)
            return None
        if found is None:
            self._observer.looked(MemoLookup.MISS)
            return None
        seal, result = bytes(found[:_SEAL]), bytes(found[_SEAL:])
        if seal != _seal(name, result):
            self._observer.looked(MemoLookup.DAMAGED)
            # The log line names namespace and digest, which are no secrets; the value may be one.
            log.warning("a memo is damaged and will be computed anew: %s", name)
            return None
        self._observer.looked(MemoLookup.HIT)
        return result

    async def memo_put(
        self, namespace: str, digest: str, result: bytes, ttl: float | None = None
    ) -> None:
        """Keep the result for `ttl` seconds; None for as long as the setting has it.

        It takes the place of what was used longest ago if there are too many.
        """
        keys, name = self._place(namespace, digest)
        limit = self._rules.share(self._rules.max_memos, keys.partition)
        try:
            await self._scripts.memo_put(
                keys,
                None,
                entry=keys.memo_prefix + name,
                index=keys.memos,
                name=name,
                prefix=keys.memo_prefix,
                value=_seal(name, result) + result,
                ttl_ms=self._ttl_ms if ttl is None else max(1, round(ttl * 1000)),
                limit=limit,
            )
        except (StoreUnavailable, CapacityExhausted) as error:
            log.debug("not memoised: %s", error)

    def _place(self, namespace: str, digest: str) -> tuple[PartitionKeys, str]:
        partition = memo_partition(namespace, digest, self._rules.partitions)
        return self._partitions[partition], memo_name(namespace, digest)


def _seal(name: str, result: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b" " + result).digest()[:_SEAL]
