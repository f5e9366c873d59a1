"""Follow streams of `tokens_of_time` through killed processes, and check each token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headstart import PrecomputeClient

STREAM_STEP = "tokens_of_time"


@dataclass
class Watched:
    """What watchers have seen."""

    late: list[float] = field(default_factory=list)
    """Milliseconds from each token's yield to its watcher."""
    tokens: int = 0
    wrong: int = 0
    """Tokens that were lost or doubled. A restart of which the watcher was not told is some."""
    restarts: int = 0
    """How often watchers were told that a step has begun anew."""
    begins: int = 0
    """How often steps have begun, by the times at which first tokens were given."""
    seen: set[str] = field(default_factory=set)
    """Keys of which there was a piece."""


async def watch(client: PrecomputeClient, key: str, tokens: int, watched: Watched) -> None:
    """Follow a stream to its end, and check that each token comes once, in order."""
    following, rest = 0, ""
    begins: set[int] = set()
    async for piece in client.stream(key, STREAM_STEP):
        now = time.monotonic_ns()
        if piece.restarted:
            following, rest = 0, ""
            watched.restarts += 1
        *whole, rest = (rest + piece.text).split(" ")
        for token in whole:
            number, at = map(int, token.split(":"))
            watched.wrong += number != following
            following = number + 1
            if number == 0:
                begins.add(at)
            watched.tokens += 1
            watched.late.append((now - at) / 1e6)
        watched.seen.add(key)
    watched.wrong += tokens - following
    watched.begins += len(begins)


async def watch_through_kills(
    client: PrecomputeClient,
    keys: Sequence[str],
    tokens: int,
    pause: float,
    kills: Sequence[Callable[[], None]],
) -> Watched:
    """Start a stream for each key, kill as soon as all give tokens, and follow them to the end."""
    watched = Watched()
    for key in keys:
        await client.start(key, "stream", {"tokens": tokens, "pause": pause})
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(watch(client, key, tokens, watched))
        while len(watched.seen) < len(keys):  # noqa: ASYNC110  # they are in other processes
            await asyncio.sleep(0.1)
        for kill in kills:
            kill()
    return watched
