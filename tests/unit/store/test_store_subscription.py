"""Subscribing while announcements arrive already."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headstart_service.domain.errors import StoreUnavailable
from headstart_service.store.connect import Client
from headstart_service.store.events import subscription

CONFIRMED = {"type": "ssubscribe", "data": 1}
EARLY = {"type": "smessage", "data": b"ended r0 - games:early"}
FIRST = {"type": "smessage", "data": b"ended r1 - games:k"}


class Arriving:
    """A client whose subscription receives these messages; None for a second of silence."""

    def __init__(self, *messages: dict[str, Any] | None) -> None:
        self._messages = list(messages)
        self.shard_channels: list[str] = []

    def pubsub(self) -> Arriving:
        return self

    async def ssubscribe(self, channel: str) -> None:
        self.shard_channels.append(channel)

    async def get_message(self, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109
        del timeout
        return self._messages.pop(0)

    async def aclose(self) -> None:
        pass


async def test_an_announcement_between_the_confirmations_is_no_confirmation() -> None:
    client = Arriving(CONFIRMED, EARLY, EARLY, CONFIRMED, FIRST)
    async with subscription(cast("Client", client), ["a", "b"]) as announcements:
        assert (await anext(announcements)).run == "r1"


async def test_a_confirmation_that_does_not_come_is_an_outage() -> None:
    client = Arriving(CONFIRMED, EARLY, None)
    with pytest.raises(StoreUnavailable, match="no answer"):
        async with subscription(cast("Client", client), ["a", "b"]):
            pass
