"""WatchResults: streams the results of runs as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from headstart._for_service import Changes
from headstart.v1 import precompute_pb2 as pb

from ...base.connection_age import age_of_one
from ...domain import Cursors, RunKey
from ...domain.errors import InvalidRequest, Violation
from ..batch_errors import error_of
from ..call_limits import CallLimit
from ..dependencies import Call, Dependencies
from ..messages import watch_bytes
from ..partial_cursors import cursors_by_key
from ..request_rules import batch_keys, checked_key, refuse, repeated_violations
from ..result_parts import part_of
from ..results.answer import Answer, Message
from ..step_names import StepNames

_MAX_WATCHED: Final = 50_000
"""Keys that the streams of many keys watch at once in a process: each takes some 5 kB."""
_QUEUED: Final = 16
"""Messages of a stream that wait for its caller; further ones wait in the keys' tasks."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A valid question for the growing results of runs."""

    keys: Sequence[RunKey]
    many: bool
    """Whether a key's error is a message, not the stream's end."""
    result_steps: Sequence[str]
    changes_only: bool
    partials: bool
    cursors: Mapping[str, Cursors]
    """By key; under the empty one for a watch of one key."""

    def cursors_of(self, key: RunKey) -> Cursors:
        """Return up to where the watcher has a key's partial results."""
        return self.cursors.get(key.key if self.many else "", {})


class WatchResults:
    """Streams results. Whole responses are serialized, because watchers of one run share them."""

    def __init__(self, api: Dependencies) -> None:
        self._reader = api.reader
        self._age = api.rules.max_connection_age
        self._limit = CallLimit("keys of WatchResults", _MAX_WATCHED)

    def parse(self, request: pb.WatchResultsRequest) -> Watch:
        """Return what to watch. Raises InvalidRequest."""
        violations: list[Violation] = []
        if many := bool(request.keys):
            keys = batch_keys(request, violations)
            if request.key:
                violations.append(Violation("key", "must be empty beside keys"))
        else:
            keys = [checked_key(request, violations)]
        violations += repeated_violations("result_steps", request.result_steps)
        cursors = cursors_by_key(request, violations, many=many)
        refuse(violations)
        steps, partials = StepNames(request.result_steps), request.partial_results
        return Watch(keys, many, steps, request.changes_only, partials, cursors)

    async def handle(self, request: pb.WatchResultsRequest, _: Call) -> AsyncGenerator[Message]:
        """Yield the results now and after each change, until the runs have ended.

        A watch that is older than a connection may be ends before: its watcher calls again, over a
        connection that may lead to another replica.
        """
        watch = self.parse(request)
        messages = self._many(watch) if watch.many else self._one(watch, watch.keys[0])
        age = age_of_one(self._age)
        ends = None if age is None else asyncio.get_running_loop().time() + age
        async with aclosing(messages):
            while True:
                try:
                    async with asyncio.timeout_at(ends) as scope:
                        message = await anext(messages)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if scope.expired():
                        return
                    raise
                yield message

    async def _one(self, watch: Watch, key: RunKey) -> AsyncGenerator[Message]:
        part = _part_of(watch)
        if watch.partials:
            async with aclosing(self._growing(watch, key, part)) as messages:
                async for message in messages:
                    yield message
            return
        async with aclosing(self._reader.watch(key)) as watched:
            async for answer in watched:
                if violations := self._reader.unknown_results(answer, watch.result_steps):
                    raise InvalidRequest(violations)
                yield part(answer)

    async def _growing(
        self, watch: Watch, key: RunKey, part: Callable[[Answer], Message]
    ) -> AsyncGenerator[Message]:
        steps = watch.result_steps
        growing = self._reader.watch_growing(key, watch.cursors_of(key), steps)
        async with aclosing(growing) as watched:
            async for answer, pieces in watched:
                added = pb.WatchResultsResponse(partial_results=pieces)
                if answer is None:
                    added.key = key.key
                    yield Message(added.SerializeToString())
                elif violations := self._reader.unknown_results(answer, steps):
                    raise InvalidRequest(violations)
                else:
                    message = part(answer)
                    more = added.SerializeToString()
                    yield Message(message.data + more) if pieces else message

    async def _many(self, watch: Watch) -> AsyncGenerator[Message]:
        with self._limit.several(len(watch.keys)):
            queue: asyncio.Queue[Message | None] = asyncio.Queue(_QUEUED)
            tasks = [asyncio.create_task(self._pass_on(watch, key, queue)) for key in watch.keys]
            left = len(tasks)
            try:
                while left:
                    if message := await queue.get():
                        yield message
                    else:
                        left -= 1
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_on(
        self, watch: Watch, key: RunKey, queue: asyncio.Queue[Message | None]
    ) -> None:
        """Put a key's messages into the queue, and None behind the last."""
        try:
            async with aclosing(self._one(watch, key)) as messages:
                async for message in messages:
                    await queue.put(message)
        except Exception as error:  # noqa: BLE001  # it is this key's last message
            last = pb.WatchResultsResponse(key=key.key, error=error_of(error))
            await queue.put(Message(last.SerializeToString()))
        await queue.put(None)


def _part_of(watch: Watch) -> Callable[[Answer], Message]:
    """Return what makes a key's messages of its answers."""
    if watch.changes_only:
        changes = Changes(watch.result_steps)
        return lambda answer: Message(watch_bytes(changes.since(answer.data)))
    if watch.result_steps:
        steps = watch.result_steps
        return lambda answer: Message(watch_bytes(part_of(answer, steps)))
    return Answer.message
