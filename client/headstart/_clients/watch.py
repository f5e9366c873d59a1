"""Watches runs to their end, over as many streams as that takes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from headstart._errors import HeadstartError, ServiceUnavailable
from headstart._messages import convert
from headstart._messages.results import Results
from headstart._transport.call_errors import Rested
from headstart._transport.connection import Connection
from headstart.v1 import precompute_pb2 as pb

# A watch gives up after so many interruptions in a row without a new state. The pauses between add
# up to about six seconds: longer than a rolling restart's gap, shorter than a user's patience.
_WATCH_ATTEMPTS: Final = 6
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 3.0
# A stream that lived so long was healthy. So was one that its server ended in order: servers that
# stop do so, and those that send their clients to new replicas.
_HEALTHY_STREAM: Final = 5.0


async def watch(
    connection: Connection, request: pb.WatchResultsRequest
) -> AsyncGenerator[Results, None]:
    """Yield each state of one run once, the ended one last; raise when resuming fails."""
    states = _States([request.key])

    def rest() -> pb.WatchResultsRequest | None:
        return request if states.left else None

    async with aclosing(_messages(connection, rest, states)) as messages:
        async for message in messages:
            yield convert.results_from(message.results)


async def watch_keys(
    connection: Connection,
    request: pb.WatchResultsRequest,
    error_from: Callable[[pb.Error], HeadstartError],
) -> AsyncGenerator[tuple[str, Results | HeadstartError], None]:
    """Yield each state of each of the request's `keys` once; raise when resuming fails."""
    states = _States(request.keys)

    def rest() -> pb.WatchResultsRequest | None:
        del request.keys[:]
        request.keys.extend(states.left)
        return request if states.left else None

    async with aclosing(_messages(connection, rest, states)) as messages:
        async for message in messages:
            if message.HasField("error"):
                yield message.key, error_from(message.error)
            else:
                yield message.results.key, convert.results_from(message.results)


class _States:
    """The last state of each key that is watched."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.left: dict[str, pb.GetResultsResponse | None] = dict.fromkeys(keys)
        """Those that have not ended."""

    def take(self, message: pb.WatchResultsResponse) -> bool:
        """Note a message; return whether it is news."""
        if message.HasField("error"):
            self.left.pop(message.key, None)
            return True
        key = message.results.key
        if message.results == self.left.get(key):
            return False
        if convert.status_from(message.results.status).ended:
            self.left.pop(key, None)
        else:
            self.left[key] = message.results
        return True


async def _messages(
    connection: Connection, rest: Callable[[], pb.WatchResultsRequest | None], states: _States
) -> AsyncGenerator[pb.WatchResultsResponse, None]:
    """Yield the news of streams of the `rest`, what has not ended, until that is None."""
    cuts = 0
    while (request := rest()) is not None:
        opened_at = time.monotonic()
        stream = await connection.stream(lambda stub: stub.WatchResults, request)
        error = ServiceUnavailable("the stream ended before the run did")
        answered = ended = False
        try:
            while (message := await stream.read()) is not None:
                answered = True
                if states.take(message):
                    cuts = 0
                    yield message
            ended = True
        except Rested:  # interrupted for a fork, which is over soon
            continue
        except ServiceUnavailable as exc:
            error = exc
        finally:
            stream.end()
        if not states.left:
            return
        planned = answered and ended
        healthy = planned or time.monotonic() - opened_at > _HEALTHY_STREAM
        cuts = 1 if healthy else cuts + 1
        if cuts >= _WATCH_ATTEMPTS or connection.closed:
            raise error
        pause = min(max(error.retry_after or 0.0, _FIRST_PAUSE * 2 ** (cuts - 1)), _LONGEST_PAUSE)
        # Not all watchers of a lost server should reconnect at once.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
