"""Watches runs to their end, over as many streams as that takes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from headstart._errors import (
    HeadstartError,
    InvalidRequest,
    NoResult,
    ServiceUnavailable,
    from_status,
)
from headstart._messages import convert
from headstart._messages.results import Results, StepState
from headstart._messages.stream_pieces import ReceivedPartials, ReceivedPieces, StreamPiece
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
    states, received = _States([request.key]), ReceivedPartials()
    last: Results | None = None

    def rest() -> pb.WatchResultsRequest | None:
        del request.partial_cursors[:]
        request.partial_cursors.extend(received.cursors)
        return request if states.left else None

    async with aclosing(_messages(connection, rest, states)) as messages:
        async for message in messages:
            received.take(message.partial_results)
            if message.HasField("results"):
                last = convert.results_from(message.results)
            if last is not None:
                yield replace(last, partials=received.values) if request.partial_results else last


async def stream(
    connection: Connection, request: pb.WatchResultsRequest, step: str
) -> AsyncGenerator[StreamPiece, None]:
    """Yield what one step gives, until it ends; raise NoResult when it ends without a result."""
    states, received = _States([request.key]), ReceivedPieces(step)

    def rest() -> pb.WatchResultsRequest | None:
        del request.partial_cursors[:]
        if received.cursor is not None:
            request.partial_cursors.append(received.cursor)
        return request if states.left else None

    async with aclosing(_messages(connection, rest, states)) as messages, _of_one_step():
        async for message in messages:
            for partial in message.partial_results:
                if (piece := received.take(partial)) is not None:
                    yield piece
            if not message.HasField("results"):
                continue
            results = convert.results_from(message.results)
            report = results.steps.get(step)
            if report is not None and report.state is StepState.COMPLETED:
                for piece in received.rest(results):
                    yield piece
                return
            if results.status.ended or (report is not None and report.state.ended):
                raise _no_result(step, results)


@asynccontextmanager
async def _of_one_step() -> AsyncIterator[None]:
    """Have a refusal name the argument `step`, which the request has as the one result step."""
    try:
        yield
    except InvalidRequest as error:
        violations = [
            replace(each, field="step") if each.field == "result_steps[0]" else each
            for each in error.violations
        ]
        if not violations:
            raise
        raise InvalidRequest("", violations) from None


def _no_result(step: str, results: Results) -> NoResult:
    """Return the error for a step of a run that has ended, or in which the step has."""
    report = results.steps.get(step)
    if report is None:
        return NoResult(f"{step} is no step of this run, which is {results.status}", step)
    if not report.state.ended:
        reason = f"its run is {results.status}: {results.error or 'no reason'}"
        return NoResult(f"{step} has no result: {reason}", step, results.failure_reason)
    how = "it failed" if report.state is StepState.FAILED else f"it was {report.state}"
    reason = f"{how}: {report.error or 'no reason'}"
    return NoResult(f"{step} has no result: {reason}", step, report.failure_reason)


async def watch_keys(
    connection: Connection, request: pb.WatchResultsRequest
) -> AsyncGenerator[tuple[str, Results | HeadstartError], None]:
    """Yield each state of each of the request's `keys` once; raise when resuming fails.

    A key that is unavailable, because its store is away, is watched again as a stream is.
    """
    states = _States(request.keys)

    def rest() -> pb.WatchResultsRequest | None:
        del request.keys[:]
        request.keys.extend(states.left)
        return request if states.left else None

    async with aclosing(_messages(connection, rest, states)) as messages:
        async for message in messages:
            if message.HasField("error"):
                yield message.key, error_of(message.error)
            else:
                yield message.results.key, convert.results_from(message.results)


def error_of(error: pb.Error) -> HeadstartError:
    """Return the error of one item of a call about many."""
    return from_status(error.code, error.message, error.SerializeToString())


class _States:
    """The last state of each key that is watched."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.left: dict[str, pb.GetResultsResponse | None] = dict.fromkeys(keys)
        """Those that have not ended."""
        self._away: dict[str, pb.WatchResultsResponse] = {}
        """Those that this stream could not watch."""
        self._tries: Counter[str] = Counter()
        """Of how many streams in a row that was so."""
        self.pause = 0.0
        """The least pause before they are watched again."""
        self._silent: set[str] = set()
        """Those of which this stream has sent nothing yet."""

    def open(self) -> None:
        """Begin a stream."""
        self._away.clear()
        self.pause = 0.0
        self._silent = set(self.left)

    def take(self, message: pb.WatchResultsResponse) -> bool:
        """Note a message; return whether it is news."""
        if message.HasField("error"):
            self._silent.discard(message.key)
            error = error_of(message.error)
            if isinstance(error, ServiceUnavailable):
                self.pause = max(self.pause, error.retry_after or 0.0)
                self._away[message.key] = message
                self._tries[message.key] += 1
                return False
            self.left.pop(message.key, None)
            return True
        key = message.results.key or message.key
        self._silent.discard(key)
        self._tries.pop(key, None)
        if not message.HasField("results"):
            return True
        if message.results == self.left.get(key) and not message.partial_results:
            return False
        if convert.status_from(message.results.status).ended:
            self.left.pop(key, None)
        else:
            self.left[key] = message.results
        return True

    @property
    def needs_another(self) -> bool:
        """Whether another stream may watch more: keys are away, and all others have a state."""
        return bool(self._away) and not self._silent

    def given_up(self) -> list[pb.WatchResultsResponse]:
        """Return the errors of the keys that were away too often; they are watched no longer."""
        found = [self._away[key] for key in self._away if self._tries[key] >= _WATCH_ATTEMPTS]
        for message in found:
            del self.left[message.key], self._away[message.key]
        return found

    @property
    def tries(self) -> int:
        """Of how many streams in a row the keys that are away were so, at most."""
        return max((self._tries[key] for key in self._away), default=1)


async def _messages(
    connection: Connection, rest: Callable[[], pb.WatchResultsRequest | None], states: _States
) -> AsyncGenerator[pb.WatchResultsResponse, None]:
    """Yield the news of streams of the `rest`, what has not ended, until that is None."""
    cuts = 0
    while (request := rest()) is not None:
        opened_at = time.monotonic()
        states.open()
        stream = await connection.stream(lambda stub: stub.WatchResults, request)
        error = ServiceUnavailable("the stream ended before the run did")
        answered = ended = False
        try:
            while not states.needs_another and (message := await stream.read()) is not None:
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
        if states.needs_another:
            for message in states.given_up():
                yield message
            tries, least = states.tries, states.pause
        else:
            planned = answered and ended
            healthy = planned or time.monotonic() - opened_at > _HEALTHY_STREAM
            cuts = 1 if healthy else cuts + 1
            tries, least = cuts, error.retry_after or 0.0
        if not states.left:
            return
        if cuts >= _WATCH_ATTEMPTS or connection.closed:
            raise error
        pause = min(max(least, _FIRST_PAUSE * 2 ** (tries - 1)), _LONGEST_PAUSE)
        # Not all watchers of a lost server should reconnect at once.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
