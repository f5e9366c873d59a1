"""One scan of the vocabulary per game, one matrix product for all games that wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ...sdk import Batcher, StepFailed
from .ratings import Rater, Ratings
from .relevance import Game

MAX_GAMES = 32
"""Per product: 3 ms for 30,000 words, and little is gained beyond."""
_MAX_WAITING = 1024


class VocabularyScan:
    """Rates all words of a vocabulary for a game, on a thread of its own.

    Games that arrive together share one matrix product, and the steps of a run share one scan. A
    game that is being scanned, or was scanned lately, is not scanned again. Use it as an async
    context manager.
    """

    def __init__(
        self,
        matrix: NDArray[np.float32],
        observe: Callable[[int, float], None] | None = None,
        *,
        identity: str = "",
        max_recent: int = 64,
        rater: Rater | None = None,
    ) -> None:
        """Scan `matrix`: the words' unit vectors, float32, shape (n, d).

        `identity` is the vocabulary's. `observe` receives of each product how many games it was for
        and how many seconds it took. The last `max_recent` ratings are kept, 240 kB each for
        30,000 words, for a run's second step.
        """
        self.identity: Final = identity
        """The identity of the vocabulary that is scanned."""
        self._matrix = matrix
        self._max_recent = max_recent
        self._rater = rater
        self._batcher = Batcher(
            self._rate,
            max_batch=MAX_GAMES,
            max_waiting=_MAX_WAITING,
            name="scan",
            observe=observe,
            check=self._check,
        )
        self._running: dict[bytes, asyncio.Task[Ratings]] = {}
        self._recent: OrderedDict[bytes, Ratings] = OrderedDict()

    async def __aenter__(self) -> Self:
        """Round the vectors, in a thread: 0.2 s for 30,000 words."""
        if self._rater is None:
            self._rater = await asyncio.to_thread(Rater, self._matrix)
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._batcher.__aexit__(kind, error, trace)

    async def rate(self, anchor: NDArray[np.float32], target: NDArray[np.float32]) -> Ratings:
        """Rate each word for the game. The same everywhere, whatever shares its product.

        Raises StepFailed when anchor or target is not of shape (d,) or not finite.
        """
        key = anchor.tobytes() + target.tobytes()
        recent = self._recent.get(key)
        if recent is not None:
            self._recent.move_to_end(key)
            return recent
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._scan(key, (anchor, target)), name="scan of a game")
            self._running[key] = task
        # Shielded: a cancelled step must not cancel the scan that the run's other step awaits.
        return await asyncio.shield(task)

    async def _scan(self, key: bytes, game: Game) -> Ratings:
        try:
            ratings = await self._batcher.submit(game)
        finally:
            # A failed scan is forgotten, so that the next attempt scans again.
            del self._running[key]
        self._recent[key] = ratings
        if len(self._recent) > self._max_recent:
            self._recent.popitem(last=False)
        return ratings

    def _rate(self, games: Sequence[Game]) -> Sequence[Ratings]:
        assert self._rater is not None, "entering has made it"
        return self._rater.rate(games)

    def _check(self, game: Game) -> None:
        wanted = self._matrix.shape[1:]
        for name, end in zip(("anchor", "target"), game, strict=True):
            if end.shape != wanted:
                reason = f"cannot scan for {name} of shape {end.shape}: it must be {wanted}"
                raise StepFailed(reason, retry=False)
            if not np.isfinite(end).all():
                raise StepFailed(f"cannot scan for {name}: it has NaN or infinity", retry=False)
