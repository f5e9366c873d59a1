"""Send script calls in batches: calls that come while one is under way form the next.

A round trip costs a Python process several times as much as the call itself. So calls of one script
for one partition travel together. The first goes at once, and no call waits for a timer. The busier
the process, the more calls share a trip.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import redis.exceptions
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError

from ..domain.errors import (
    CapacityExhausted,
    LayoutMismatch,
    RecordDamaged,
    StoreUnavailable,
)
from .circuit_breaker import CircuitBreaker
from .connect import AWAY
from .keys import GROUP, PartitionKeys, from_member
from .refusals import report
from .store_observer import (
    FULL,
    LOST,
    REFUSED,
    SKIPPED,
    TIMEOUT,
    StoreObserver,
    Unwatched,
)

Reply = Any
Value = str | bytes | int
T = TypeVar("T")

_GRACE = 0.02
"""Seconds that a reply has, behind its budget, to be seen by a loop that was busy."""
_BUSY = 0.001
"""Seconds after a trip within which the next one is a sign of a busy process."""
_TURNS = 60
"""How many turns of its loop, some microseconds each, a busy process lets pass meanwhile."""
_ENOUGH = 16
"""Calls with which a trip need not wait for more."""
_SOON = 1.0
"""Delay in seconds before a caller may retry while a server is away."""
_MAX_CALLS = 32
"""Calls in a batch at most: Redis serves no other client while it runs them."""
_MAX_BYTES = 1 << 20
"""About how much a batch of several calls sends at most."""
MAX_REPLY = 1 << 20
"""Bytes of replies after which a script leaves the rest of its batch for the next one."""
SLOWEST = 10e6
"""Bytes a second at which commands and replies are still waited for."""
_DAMAGED = "DAMAGED"
"""How the error for a damaged record begins; the call's first argument names its run."""
_LAYOUT = "LAYOUT "
"""How the error begins with which a script refuses a caller of another layout."""


class _Script(Protocol):
    async def __call__(self, keys: Sequence[str], args: Sequence[Value]) -> Any: ...


class ScriptClient(Protocol):
    """A client that can run scripts; redis-py's, of a server or of a cluster."""

    def register_script(self, script: str) -> _Script:
        """Register a script; it is loaded at its first use, and again when Redis has lost it."""
        ...


class Agreement(Protocol):
    """The layout that callers of scripts expect; `layout.StoreLayout` satisfies it."""

    @property
    def token(self) -> str:
        """The layout, as its key holds it."""
        ...

    async def agree(self, keys: PartitionKeys) -> None:
        """Compare, and write the layout where there is none. Raises LayoutMismatch."""
        ...

    def mismatch(self, found: str) -> LayoutMismatch:
        """Return the error for a store that has the layout `found`."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    record: str | None
    arguments: Sequence[Value]
    size: int
    """Bytes of its arguments."""
    reply: asyncio.Future[Reply]


@dataclass(slots=True)
class _Lane:
    """The calls of one script for one partition; one batch of them is under way at a time."""

    name: str
    script: _Script
    keys: PartitionKeys
    breaker: CircuitBreaker
    waiting: deque[_Call] = field(default_factory=deque)
    sender: asyncio.Task[None] | None = None
    landed: float = -1.0
    """When its last trip ended, in loop time."""


class ScriptBatches:
    """Runs scripts on one client, on a bounded number of its connections."""

    def __init__(
        self,
        client: ScriptClient,
        sources: Mapping[str, str],
        *,
        budget: float,
        connections: int,
        layout: Agreement,
        observer: StoreObserver | None = None,
    ) -> None:
        """Give up on Redis `budget` seconds after a batch's turn, and one more per 10 MB sent."""
        self.observer = observer or Unwatched()
        self._layout = layout
        self._scripts = {name: client.register_script(text) for name, text in sources.items()}
        self._budget = budget
        self._turn = asyncio.Semaphore(connections)
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._breakers: dict[int, CircuitBreaker] = {}

    async def call(
        self, name: str, keys: PartitionKeys, record: str | None, arguments: Sequence[Value]
    ) -> Reply:
        """Return the script's reply.

        Raises StoreUnavailable, LayoutMismatch, RecordDamaged, and CapacityExhausted when Redis is
        full.
        """
        lane = self._lanes.get((name, keys.partition))
        if lane is None:
            lane = self._lanes[name, keys.partition] = self._new_lane(name, keys)
        loop = asyncio.get_running_loop()
        if lane.breaker.away and not lane.breaker.admits(loop.time()):
            self.observer.failed(name, 1, SKIPPED)
            raise StoreUnavailable(f"{lane.breaker.reason}, as others found out before", _SOON)
        size = sum([len(argument) for argument in arguments if not isinstance(argument, int)])
        call = _Call(record, arguments, size, loop.create_future())
        lane.waiting.append(call)
        if lane.sender is None:
            # The batch serves other callers too, so it carries neither log fields nor the trace of
            # this one.
            lane.sender = asyncio.create_task(
                self._send(lane), name=f"{name} {keys.partition}", context=Context()
            )
        return await call.reply

    def _new_lane(self, name: str, keys: PartitionKeys) -> _Lane:
        breaker = self._breakers.setdefault(keys.partition, CircuitBreaker(self._budget + _GRACE))
        return _Lane(name, self._scripts[name], keys, breaker)

    @property
    def unreachable(self) -> int:
        """The number of partitions whose server is known to be away: no call is sent there."""
        return sum(breaker.open for breaker in self._breakers.values())

    async def aclose(self) -> None:
        """End what is under way for callers that have gone."""
        senders = [lane.sender for lane in self._lanes.values() if lane.sender is not None]
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    async def _send(self, lane: _Lane) -> None:
        """Send batches until no caller waits."""
        batch: Sequence[_Call] = ()
        try:
            while batch := await _gathered(lane):
                try:
                    replies = await self._fly(lane, batch)
                except StoreUnavailable as error:
                    self.observer.failed(lane.name, len(batch), _kind(error))
                    if lane.waiting:
                        self.observer.failed(lane.name, len(lane.waiting), SKIPPED)
                    # Later calls of the batch would fail in the same way.
                    batch = [*batch, *lane.waiting]
                    lane.waiting.clear()
                    _refuse(batch, error)
                except Exception as error:  # noqa: BLE001  # each caller gets it
                    if isinstance(error, CapacityExhausted):
                        self.observer.failed(lane.name, len(batch), FULL)
                    _refuse(batch, error)
                else:
                    lane.waiting.extendleft(reversed(batch[len(replies) :]))
                    for call, reply in zip(batch, replies, strict=False):
                        self._settle(lane.name, call, reply)
                    batch = ()
        finally:
            lane.sender = None
            for call in (*batch, *lane.waiting):
                call.reply.cancel()
            lane.waiting.clear()

    async def _fly(self, lane: _Lane, batch: Sequence[_Call]) -> Sequence[Reply]:
        """Send one batch and return its replies."""
        loop = asyncio.get_running_loop()
        keys = list(lane.keys.fixed)
        arguments: list[Value] = [lane.keys.events, lane.keys.record_prefix, GROUP]
        arguments += (self._layout.token, len(batch))
        for call in batch:
            if call.record is not None:
                keys.append(call.record)
            arguments.append(len(call.arguments))
            arguments += call.arguments
        breaker = lane.breaker
        lost = breaker.lost
        async with self._turn:
            if breaker.away and breaker.lost > lost:
                # If Redis is away, each call would wait for the time limits of all calls before it.
                raise StoreUnavailable(f"{breaker.reason}, as others found out meanwhile")
            began = time.perf_counter()  # an event loop's clock may have a resolution of 1 ms
            try:
                budget = self._budget + sum([call.size for call in batch]) / SLOWEST
                replies: Sequence[Reply] = await answered(
                    self._agreed(lane, keys, arguments), budget
                )
                lane.landed = loop.time()
                self.observer.trip(lane.name, len(replies), time.perf_counter() - began)
            except (LayoutMismatch, CapacityExhausted):
                breaker.answered()
                raise
            except StoreUnavailable as error:
                breaker.failed(loop.time(), str(error))
                raise
        breaker.answered()
        return replies

    async def _agreed(
        self, lane: _Lane, keys: Sequence[str], arguments: Sequence[Value]
    ) -> Sequence[Reply]:
        """Run the script; where a flush has taken the layout, write that first."""
        try:
            replies: Sequence[Reply] = await lane.script(keys, arguments)
        except ResponseError as error:
            if not str(error).startswith(_LAYOUT):
                raise
            if found := str(error).removeprefix(_LAYOUT):
                raise self._layout.mismatch(found) from error
            await self._layout.agree(lane.keys)
            replies = await lane.script(keys, arguments)
        return replies

    def _settle(self, name: str, call: _Call, reply: Reply) -> None:
        error = isinstance(reply, ResponseError)
        damaged = error and str(reply).startswith(_DAMAGED)
        if damaged:
            self.observer.damaged()
        elif error:
            self.observer.failed(name, 1, REFUSED)
        if call.reply.done():
            return
        if damaged:
            call.reply.set_exception(RecordDamaged(str(from_member(str(call.arguments[0])))))
        elif error:
            call.reply.set_exception(unavailable(reply))
        else:
            call.reply.set_result(reply)


async def _gathered(lane: _Lane) -> Sequence[_Call]:
    """Return the next batch; empty when no caller waits."""
    if asyncio.get_running_loop().time() - lane.landed < _BUSY:
        for _ in range(_TURNS):
            if len(lane.waiting) >= _ENOUGH:
                break
            await asyncio.sleep(0)
    waiting = lane.waiting
    batch: list[_Call] = []
    size = 0
    while waiting and len(batch) < _MAX_CALLS:
        if waiting[0].reply.done():  # its caller has gone
            waiting.popleft()
            continue
        size += waiting[0].size
        if batch and size > _MAX_BYTES:
            break
        batch.append(waiting.popleft())
    return batch


def _refuse(batch: Sequence[_Call], error: Exception) -> None:
    for call in batch:
        if not call.reply.done():
            call.reply.set_exception(error)


async def answered(call: Awaitable[T], budget: float) -> T:
    """Return the reply to `call`. Raises StoreUnavailable after `budget` seconds without one."""
    loop = asyncio.get_running_loop()

    def late() -> None:
        # On a busy machine the reply may have arrived, and this loop reads it too late.
        limit.reschedule(loop.time() + _GRACE)

    timer = loop.call_later(budget, late)
    try:
        async with asyncio.timeout(None) as limit:
            return await call
    except OutOfMemoryError as error:
        raise CapacityExhausted(report(error), 5.0) from error
    except AWAY as error:
        raise unavailable(error) from error
    finally:
        timer.cancel()


def _kind(error: StoreUnavailable) -> str:
    """Return which of `observe.ERRORS` it is."""
    cause = error.__cause__
    if cause is None:
        return SKIPPED
    return kind_of(cause)


def kind_of(cause: BaseException) -> str:
    """Return which of `observe.ERRORS` an error of `connect.AWAY` is."""
    if isinstance(cause, OutOfMemoryError):
        return FULL
    if isinstance(cause, (ResponseError, AuthenticationError)):
        return REFUSED
    return TIMEOUT if isinstance(cause, (TimeoutError, redis.exceptions.TimeoutError)) else LOST


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the error for callers, whose cause and reason is an error of `connect.AWAY`."""
    raised = StoreUnavailable(report(error))
    raised.__cause__ = error
    return raised
