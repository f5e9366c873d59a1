"""The games that were begun, in memory: at most so many, each for so long."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from headstart_service.pipelines.bridging.inputs import BridgingInputs

MAX_GAMES = 1000
TTL = 1800.0
"""Seconds, as the service keeps results."""


@dataclass(frozen=True)
class Game:
    """One game. Its id is the key of its run, and as hard to guess as a session's."""

    id: str
    inputs: BridgingInputs
    head_start: bool


class Games:
    """Remembers games; the oldest goes when there is no room."""

    def __init__(
        self,
        *,
        most: int = MAX_GAMES,
        ttl: float = TTL,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep at most `most` games, each for `ttl` seconds of the clock `now`."""
        self._most = most
        self._ttl = ttl
        self._now = now
        self._games: OrderedDict[str, tuple[float, Game]] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._games)

    def begin(self, inputs: BridgingInputs, *, head_start: bool) -> Game:
        """Remember a new game."""
        game = Game(f"game-{secrets.token_urlsafe(12)}", inputs, head_start)
        self._games[game.id] = (self._now() + self._ttl, game)
        self._forget()
        return game

    def get(self, game_id: str) -> Game | None:
        """The game, or None when there is none, any more or ever."""
        self._forget()
        kept = self._games.get(game_id)
        return kept[1] if kept else None

    def _forget(self) -> None:
        # Games are in the order of their beginning, and so of their expiry.
        now = self._now()
        while self._games:
            expires, game = next(iter(self._games.values()))
            if expires > now and len(self._games) <= self._most:
                return
            del self._games[game.id]
