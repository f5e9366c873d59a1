"""The right to make one call of a provider."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from ..domain import Ask, CallOutcome, Settlement


class Settles(Protocol):
    """Notes the ends of calls; `governor.Governor` satisfies it."""

    def settled(self, run: str, settled: Settlement, seconds: float) -> asyncio.Future[None]:
        """Note the end of a call of a run, which took so long."""
        ...


class Permit:
    """The right to make one call. Settle it once, however the call ends."""

    def __init__(self, governor: Settles, ask: Ask, granted_us: int, run: str) -> None:
        self._governor = governor
        self._run = run
        self._ask = ask
        self._granted_us = granted_us
        self._began = time.monotonic()
        self._settling: asyncio.Future[None] | None = None

    def settle(
        self,
        outcome: CallOutcome,
        ending: str,
        *,
        retry_after: float = 0.0,
        tokens: int = 0,
        cached_tokens: int = 0,
    ) -> asyncio.Future[None]:
        """Note how the call ended; the permit is free for others. Later calls change nothing.

        Returns what is done once all workers know it.
        """
        if self._settling is not None:
            return self._settling
        settled = Settlement(
            lease=self._ask.lease,
            outcome=outcome,
            ending=ending,
            namespace=self._ask.namespace,
            granted_us=self._granted_us,
            retry_after=retry_after,
            estimate=self._ask.tokens,
            tokens=tokens,
            cached_tokens=cached_tokens,
        )
        self._settling = self._governor.settled(self._run, settled, time.monotonic() - self._began)
        return self._settling
