"""Watches a run to its end, over as many streams as that takes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from typing import Final

from headstart._errors import ServiceUnavailable
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
# A stream that lived so long was healthy: servers end old connections on purpose, to rebalance.
_HEALTHY_STREAM: Final = 5.0


async def watch(
    connection: Connection, request: pb.WatchResultsRequest
) -> AsyncGenerator[Results, None]:
    """Yield each state once, the ended one last; raise when resuming no longer helps."""
    last: pb.GetResultsResponse | None = None
    ended = False
    cuts = 0
    while True:
        opened_at = time.monotonic()
        stream = await connection.stream(lambda stub: stub.WatchResults, request)
        error = ServiceUnavailable("the stream ended before the run did")
        try:
            while (message := await stream.read()) is not None:
                if message.results != last:
                    last = message.results
                    cuts = 0
                    results = convert.results_from(last)
                    ended = results.status.ended
                    yield results
        except Rested:  # interrupted for a fork, which is over soon
            continue
        except ServiceUnavailable as exc:
            error = exc
        finally:
            stream.end()
        if ended:
            return
        cuts = 1 if time.monotonic() - opened_at > _HEALTHY_STREAM else cuts + 1
        if cuts >= _WATCH_ATTEMPTS or connection.closed:
            raise error
        pause = min(max(error.retry_after or 0.0, _FIRST_PAUSE * 2 ** (cuts - 1)), _LONGEST_PAUSE)
        # Not all watchers of a lost server should reconnect at once.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
