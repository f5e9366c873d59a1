"""What the store announces, as it happens: one subscription for each process that listens."""

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

_SILENCE = 5.0
"""Seconds of silence after which a subscription must prove, within as long, that it lives."""


@asynccontextmanager
async def subscription(
    client: Client, channels: Sequence[str]
) -> AsyncIterator[AsyncIterator[Announcement]]:
    """Subscribe, and give what is announced from then on.

    Raises StoreUnavailable, on entry or from the iterator, when the connection is lost: what was
    announced meanwhile is lost too, so whoever subscribes again must look again.
    """
    pubsub: Any = client.pubsub()
    try:
        try:
            if isinstance(client, RedisCluster):
                # Every announcement reaches every node, so any one's connection hears all. redis-py
                # picks one from what it knows: at first nothing, later maybe one that has gone.
                await client.initialize()
                await client.nodes_manager.initialize()
            await pubsub.subscribe(*channels)
            for _ in channels:
                if await pubsub.get_message(timeout=1.0) is None:
                    raise StoreUnavailable("cannot subscribe: no answer")
        except AWAY as error:
            raise StoreUnavailable(f"cannot subscribe: {report(error)}") from error
        yield _announcements(pubsub)
    finally:
        await pubsub.aclose()


async def _announcements(pubsub: Any) -> AsyncIterator[Announcement]:
    asked = False
    try:
        while True:
            message = await pubsub.get_message(timeout=_SILENCE)
            if message is None:
                if asked:
                    raise StoreUnavailable("subscription lost: silence")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] != "message":
                continue
            try:
                announcement = _parse(message["data"])
            except ValueError:
                # Anybody who reaches this Redis can publish anything.
                log.warning("not an announcement of ours: %r", message["data"][:100])
            else:
                yield announcement
    except AWAY as error:
        raise StoreUnavailable(f"subscription lost: {report(error)}") from error


def _parse(data: bytes) -> Announcement:
    """An announcement as _lib.lua publishes it. Raises ValueError for anything else."""
    name, run, what, member = data.decode().split(" ", 3)
    kind, key, run, what = EventKind(name), from_member(member), _given(run), _given(what)
    if kind is EventKind.STARTED:
        return Announcement(kind, key, run, replaced=what)
    return Announcement(kind, key, run, tuple(what.split(",")) if what else ())


def _given(text: str) -> str:
    return "" if text == "-" else text
