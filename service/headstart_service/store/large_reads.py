"""Read records of megabytes one at a time, on a separate connection.

Inside a script Redis copies a record three times and serves no other client meanwhile. For a plain
HGETALL it copies once, and sends between other clients' commands. A read that is slow because it is
large does not prove that Redis is away, so it does not count for the circuit breaker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from .batches import SLOWEST, answered, kind_of
from .connect import Client
from .store_observer import StoreObserver

LARGE: Final = 256 * 1024
"""Bytes of memory from which on a record is large; read.lua is passed it."""
_COMMAND: Final = "HGETALL"


class LargeReads:
    """Reads whole records."""

    def __init__(self, client: Client, *, budget: float, observer: StoreObserver) -> None:
        """Give up on a record `budget` seconds after its turn, and one more for each 10 MB."""
        self._client = client
        self._budget = budget
        self._observer = observer
        self._turn = asyncio.Semaphore(1)

    async def read(self, record: str, size: int) -> Mapping[bytes, bytes]:
        """Return the fields of the record of this key, which takes `size` bytes; {} if none exists.

        Raises StoreUnavailable.
        """
        async with self._turn:
            began = time.perf_counter()
            try:
                fields: Mapping[bytes, bytes] = await answered(
                    self._client.execute_command(_COMMAND, record), self._budget + size / SLOWEST
                )
            except Exception as error:
                if error.__cause__ is not None:
                    self._observer.failed(_COMMAND, 1, kind_of(error.__cause__))
                raise
            self._observer.trip(_COMMAND, 1, time.perf_counter() - began)
            return fields
