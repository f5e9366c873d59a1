"""Receive what the store announces: one subscription for each process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import RedisCluster

from ..domain import Announcement, EventKind
from ..domain.errors import StoreUnavailable
from .connect import AWAY, Client
from .keys import from_member
from .refusals import report

log = logging.getLogger(__name__)

SILENCE = 5.0
"""Seconds of silence after which a subscription must prove that it lives."""


@asynccontextmanager
async def subscription(
    client: Client, channels: Sequence[str], *, silence: float = SILENCE
) -> AsyncIterator[AsyncIterator[Announcement]]:
    """Subscribe, and yield an iterator of what is announced from then on.

    After `silence` seconds without a message the subscription must prove, within as long, that it
    lives. Raises StoreUnavailable, on entry or from the iterator, when the connection is lost. What
    was announced meanwhile is lost too: a caller that subscribes again must read again.
    """
    pubsub: Any = client.pubsub()
    try:
        try:
            if isinstance(client, RedisCluster):
                # Every announcement reaches every node, so a connection to any node gets all.
                # redis-py picks one of the nodes that it knows: it knows none at first, and
                # later maybe one that has gone.
                await client.initialize()
                await client.nodes_manager.initialize()
            await pubsub.subscribe(*channels)
            for _ in channels:
                if await pubsub.get_message(timeout=1.0) is None:
                    raise StoreUnavailable("cannot subscribe: no answer")
        except AWAY as error:
            raise StoreUnavailable(f"cannot subscribe: {report(error)}") from error
        yield _announcements(pubsub, silence)
    finally:
        await pubsub.aclose()


async def _announcements(pubsub: Any, silence: float) -> AsyncIterator[Announcement]:
    pinged = False
    try:
        while True:
            message = await pubsub.get_message(timeout=silence)
            if message is None:
                if pinged:
                    raise StoreUnavailable("subscription lost: silence")
                await pubsub.ping()
                pinged = True
                continue
            pinged = False
            if message["type"] != "message":
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
    name, run, what, member = data.decode().split(" ", 3)
    kind, key, run, what = EventKind(name), from_member(member), _given(run), _given(what)
    if kind is EventKind.STARTED:
        return Announcement(kind, key, run, replaced=what)
    return Announcement(kind, key, run, tuple(what.split(",")) if what else ())


def _given(text: str) -> str:
    return "" if text == "-" else text
