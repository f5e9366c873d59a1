"""What the runs do, the same functions for everyone; imported in the peers' own environments.

Nothing of Headstart is loaded before somebody plays a game.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..servers.compute import Computation

REDIS_URL = "PEERS_REDIS_URL"
GAMES = "PEERS_GAMES"
"""Set, makes a worker load the model before its first job."""
POLL = "PEERS_POLL"
"""Seconds between two looks, for who polls; unset leaves the peer's default."""
_LOOK_AGAIN = 0.002


def redis_url() -> str:
    """Where the peer keeps its things."""
    return os.environ[REDIS_URL]


def poll(default: float) -> float:
    """The interval to poll with."""
    return float(os.environ.get(POLL, default))


def nothing(value: int) -> int:
    """Computes next to nothing, as `benchmarks.pipelines.nothing` does."""
    return value


async def gate(path: str) -> float:
    """Wait until the file is there; when that was, by the clock that all processes share."""
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240  # the one who opens is elsewhere
        await asyncio.sleep(_LOOK_AGAIN)
    return time.monotonic()


def blocking_gate(path: str) -> float:
    """The same for a worker process that does one thing at a time."""
    while not Path(path).exists():
        time.sleep(_LOOK_AGAIN)
    return time.monotonic()


def kept(path: str) -> dict[str, Any]:
    """The values in this file: a result that others fetch."""
    values: dict[str, Any] = json.loads(Path(path).read_text())
    return values


def game(anchor: str, target: str) -> dict[str, Any]:
    """All results of a game against a person, as the lists that the seed's result has."""
    (values,) = computation().play([(anchor, target)])
    plain = (getattr(value, "tolist", lambda value=value: value) for value in values.values())
    return dict(zip(values, (value() for value in plain), strict=True))


@cache
def computation() -> Computation:
    """This process's model and vocabulary, with one thread as a `headstart worker` has."""
    from ..servers.compute import Computation

    return Computation(threads=1, engine="onnxruntime")


def load() -> None:
    """What a worker does before its first job."""
    if GAMES in os.environ:
        computation()
