"""Sweep expired runs and mend the indexes beside the records."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Final

from ..base.metric_labels import Eviction
from ..domain import Status
from .keys import PartitionKeys
from .retries import Retries
from .scripts import Scripts
from .store_observer import StoreObserver

log = logging.getLogger(__name__)

_INDEXES: Final = ("-", *Status, "expiry")
"""What `reindex` compares, in this order: the records, then each index."""


class Upkeep:
    """Keeps partitions clean, in calls that each do a bounded amount of work."""

    def __init__(self, scripts: Scripts, retries: Retries, observer: StoreObserver) -> None:
        """Run `scripts`, repeated by `retries`."""
        self._scripts = scripts
        self._retries = retries
        self._observer = observer

    async def sweep(self, partitions: Iterable[PartitionKeys]) -> None:
        """Forget expired runs, which frees memory without a start; mend broken indexes."""
        for keys in partitions:
            more = 1
            while more:  # each call removes a bounded number: Redis serves others in between
                call = partial(self._scripts.sweep, keys, None)
                expired, more, broken = await self._retries.run(call)
                if expired:
                    self._observer.evicted(Eviction.EXPIRED, expired)
                if broken:
                    await self.reindex(keys)

    async def reindex(self, keys: PartitionKeys) -> None:
        """Mend a partition's indexes by its records; each call compares a bounded number."""
        mended = 0
        for index in _INDEXES:
            cursor = b"0"
            while True:
                call = partial(self._scripts.reindex, keys, None, index=index, cursor=cursor)
                cursor, found = await self._retries.run(call)
                mended += found
                if cursor == b"0":
                    break
        if mended:
            log.error(
                "indexes of partition %d mended: %d entries were missing or wrong; is Redis' "
                "maxmemory-policy noeviction, and does no other program delete its keys?",
                *(keys.partition, mended),
            )
