"""Receive what the store announces: one subscription for each process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import RedisCluster

from ..domain import Announcement, EventKind
from ..domain.errors import StoreUnavailable
from .connect import AWAY, Client
from .keys import from_member
from .partials import parse_piece
from .records import decode_snapshot
from .refusals import report

log = logging.getLogger(__name__)

SILENCE = 5.0
"""Seconds of silence after which a connection must prove that it lives."""
_QUEUED = 1000
"""Announcements of several connections that wait to be taken; further ones stay in Redis."""
_ENTRY = 5.0
"""Seconds within which a server must confirm a subscription."""
_AGAIN = 0.5
"""Seconds after which a section that was lost is subscribed to again."""
_MOVED = frozenset({"ssubscribe", "sunsubscribe"})
"""Messages that come when redis-py or the server has moved a channel: some may be lost."""


@asynccontextmanager
async def subscription(
    client: Client, channels: Sequence[str], *, silence: float = SILENCE
) -> AsyncIterator[AsyncIterator[Announcement]]:
    """Subscribe, and yield an iterator of what is announced from then on.

    After `silence` seconds without a message a connection must prove, within as long, that it
    lives. Raises StoreUnavailable, on entry or from the iterator, when one is lost or a channel has
    moved to another node. What was announced meanwhile is lost too: a caller that subscribes again
    must read again.
    """
    pubsub: Any = client.pubsub()
    reading: list[asyncio.Task[None]] = []
    try:
        try:
            async with asyncio.timeout(_ENTRY):
                connections = await _subscribed(client, pubsub, channels)
        except TimeoutError as error:  # a server that hangs still accepts connections
            raise StoreUnavailable("cannot subscribe: no answer") from error
        except AWAY as error:
            raise StoreUnavailable(f"cannot subscribe: {report(error)}") from error
        if len(connections) == 1:
            yield _announcements(connections[0], silence)
            return
        arrived: asyncio.Queue[Announcement | StoreUnavailable] = asyncio.Queue(_QUEUED)
        reading += [
            asyncio.create_task(_pass_on(connection, silence, arrived), name="announcements")
            for connection in connections
        ]
        yield _queued(arrived)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await pubsub.aclose()


@asynccontextmanager
async def lasting_subscription(
    client: Client, sections: Sequence[Sequence[str]]
) -> AsyncIterator[AsyncIterator[Announcement]]:
    """Subscribe to each section by itself, and again when one is lost; else as `subscription`.

    So announcements of a cluster's other nodes arrive while one is away. Raises StoreUnavailable,
    on entry or from the iterator, when none is subscribed to.
    """
    if len(sections) == 1:
        async with subscription(client, sections[0]) as announcements:
            yield announcements
        return
    merged = _Merged(client)
    receiving = [
        asyncio.create_task(merged.receive(channels), name="announcements") for channels in sections
    ]
    try:
        for _ in sections:
            await merged.tried.acquire()
        if not merged.active:
            raise StoreUnavailable("cannot subscribe: no node answers")
        yield _queued(merged.arrived)
    finally:
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)


class _Merged:
    """The announcements of several subscriptions."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.arrived: asyncio.Queue[Announcement | StoreUnavailable] = asyncio.Queue(_QUEUED)
        self.active = 0
        """How many subscriptions there are now."""
        self.tried = asyncio.Semaphore(0)
        """How many sections were subscribed to, or could not be, for the first time."""

    async def receive(self, channels: Sequence[str]) -> None:
        """Receive one section until cancelled."""
        try:
            await self._receive_once(channels, self.tried.release)
        except StoreUnavailable:
            self.tried.release()  # if it was lost later, this counts for nothing
        while True:
            await asyncio.sleep(_AGAIN)
            with suppress(StoreUnavailable):
                await self._receive_once(channels, lambda: None)

    async def _receive_once(self, channels: Sequence[str], opened: Callable[[], None]) -> None:
        async with subscription(self._client, channels) as announcements:
            self.active += 1
            opened()
            try:
                async for announcement in announcements:
                    await self.arrived.put(announcement)
            except StoreUnavailable as error:
                if self.active == 1:
                    await self.arrived.put(error)
                raise
            finally:
                self.active -= 1


def _connections(pubsub: Any) -> list[Any]:
    """Return a pubsub of redis-py for each connection: in a cluster there is one to each node."""
    return list(getattr(pubsub, "node_pubsub_mapping", {}).values()) or [pubsub]


async def _subscribed(client: Client, pubsub: Any, channels: Sequence[str]) -> list[Any]:
    """Subscribe, and return a pubsub of redis-py for each connection."""
    if isinstance(client, RedisCluster):
        # redis-py knows no node at first, and later maybe one that has gone.
        await client.initialize()
        await client.nodes_manager.initialize()
    for channel in channels:
        await pubsub.ssubscribe(channel)  # a cluster refuses several slots in one command
    connections = _connections(pubsub)
    for connection in connections:
        await _confirmed(connection)
    return connections


async def _confirmed(connection: Any) -> None:
    """Return when the server has confirmed each of the connection's channels.

    Announcements may arrive before that. They are lost, as all are until then.
    """
    left = len(connection.shard_channels)
    while left:
        message = await connection.get_message(timeout=1.0)
        if message is None:
            raise StoreUnavailable("cannot subscribe: no answer")
        left -= message["type"] == "ssubscribe"


async def _pass_on(
    connection: Any, silence: float, arrived: asyncio.Queue[Announcement | StoreUnavailable]
) -> None:
    """Put what arrives on one connection into the queue, and last the error that ends it."""
    try:
        async for announcement in _announcements(connection, silence):
            await arrived.put(announcement)
    except StoreUnavailable as error:
        await arrived.put(error)


async def _queued(
    arrived: asyncio.Queue[Announcement | StoreUnavailable],
) -> AsyncIterator[Announcement]:
    while True:
        match await arrived.get():
            case StoreUnavailable() as error:
                raise error
            case announcement:
                yield announcement


async def _announcements(connection: Any, silence: float) -> AsyncIterator[Announcement]:
    pinged = False
    try:
        while True:
            message = await connection.get_message(timeout=silence)
            if message is None:
                if pinged:
                    raise StoreUnavailable("subscription lost: silence")
                await connection.ping()
                pinged = True
                continue
            pinged = False
            if message["type"] in _MOVED:
                raise StoreUnavailable("subscription lost: its channel has moved")
            if message["type"] != "smessage":
                continue
            try:
                announcement = parse_announcement(message["data"])
            except ValueError:
                # Any client of this Redis can publish any text.
                log.warning("not an announcement of ours: %r", message["data"][:100])
            else:
                yield announcement
    except AWAY as error:
        raise StoreUnavailable(f"subscription lost: {report(error)}") from error


def parse_announcement(data: bytes) -> Announcement:
    """Return the announcement that a script published. Raises ValueError for any other text."""
    name, run_id, detail, rest = data.split(b" ", 3)
    kind, run, what = EventKind(name.decode()), _given(run_id), _given(detail)
    if kind.ends_run and what:
        return _with_result(kind, run, what, rest)
    if kind is EventKind.PARTIAL:
        return _with_piece(run, what, rest)
    key = from_member(rest.decode())
    if kind is EventKind.STARTED:
        return Announcement(kind, key, run, replaced=what)
    return Announcement(kind, key, run, tuple(what.split(",")) if what else ())


def _with_result(kind: EventKind, run: str, sizes: str, rest: bytes) -> Announcement:
    """Return the end of a run with its result, which stands behind the run's name."""
    left_us, *lengths = map(int, sizes.split(","))
    at = len(rest) - sum(lengths)
    key = from_member(rest[:at].decode())
    values = []
    for length in lengths:
        values.append(rest[at : at + length])
        at += length
    try:
        result = decode_snapshot(key, left_us, values)
    except (LookupError, ValueError, OverflowError):  # the record is damaged: a read reports it
        result = None
    return Announcement(kind, key, run, result=result)


def _with_piece(run: str, what: str, rest: bytes) -> Announcement:
    """Return what a step has given, which stands behind the run's name."""
    at = len(rest) - int(what.rpartition(",")[2])
    piece = parse_piece(what, rest[at:])
    key = from_member(rest[:at].decode())
    return Announcement(EventKind.PARTIAL, key, run, piece=piece)


def _given(text: bytes) -> str:
    return "" if text == b"-" else text.decode()
