"""An API process that serves looks after the queue's consumer groups now and then."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from headstart_service import app
from headstart_service.errors import StoreUnavailable
from tests.support.waiting import wait_until


class _Store:
    """Counts what it is asked, and can be away."""

    def __init__(self) -> None:
        self.prepared = self.pings = 0
        self.away = False

    async def prepare(self) -> None:
        self._answer()
        self.prepared += 1

    async def ping(self) -> None:
        self._answer()
        self.pings += 1

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class _Health:
    async def set_serving(self, *, serving: bool) -> None:
        pass


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(app, "_CHECK_EVERY", 0.001)
    store = _Store()
    readiness = app._Readiness(store, _Health(), None, quiet=True)  # type: ignore[arg-type]
    task = asyncio.create_task(readiness.watch("localhost:1", "-plaintext"))
    yield store, readiness
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_groups_are_made_before_it_serves_and_looked_after_later(watched: Any):
    store, readiness = watched
    await wait_until(lambda: readiness.serving)
    assert store.prepared >= 1
    await wait_until(lambda: store.pings > 2 * app._PREPARE_EVERY)
    assert 2 <= store.prepared <= 1 + store.pings / app._PREPARE_EVERY + 1


async def test_they_are_made_again_before_it_serves_again(watched: Any):
    store, readiness = watched
    await wait_until(lambda: readiness.serving)
    store.away = True
    await wait_until(lambda: not readiness.serving)
    before = store.prepared
    store.away = False
    await wait_until(lambda: readiness.serving)
    assert store.prepared > before
