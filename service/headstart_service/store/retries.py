"""Repeat calls of scripts while the store is away for a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..domain.errors import StoreUnavailable
from .batches import Reply
from .refusals import passes

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


class Retries:
    """Repeats calls with exponential backoff; repeating a script does no harm."""

    def __init__(self, budget: float) -> None:
        """Try each call for `budget` seconds."""
        self.budget = budget

    async def run(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the call's reply, after as many tries as the budget allows.

        Raises StoreUnavailable, at once where the command itself is wrong.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.budget
        pause = _FIRST_PAUSE
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                if not passes(error.__cause__) or clock() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
